//! A primary that Sentinels tell: `redis+sentinel://[user:password@]host[:port],host[:port]/name[/database]`.

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionAddr, ErrorKind, RedisError, RedisResult, TlsCertificates, TlsMode};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::store::StoreError;

/// Schemes of such addresses, plain and with TLS.
const SCHEMES: [(&str, bool); 2] = [("redis+sentinel://", false), ("rediss+sentinel://", true)];
/// Port of Sentinels that do not say.
const PORT: u16 = 26379;
/// Least time for a look at all Sentinels: the client tries a dead one for a second.
const PATIENCE: Duration = Duration::from_secs(3);

/// Sentinels that know the primary. Clones ask over the same connections.
#[derive(Clone)]
pub struct Sentinels {
    client: Arc<Mutex<SentinelClient>>,
    name: Arc<str>,
    patience: Duration,
}

/// What an address says. It has no `Debug`: it holds secrets.
struct Address {
    has_tls: bool,
    /// Host and port of each Sentinel.
    places: Vec<(String, u16)>,
    name: String,
    database: i64,
    /// Of the primary: user and password.
    data: (Option<String>, Option<String>),
    /// Of the Sentinels.
    sentinel: (Option<String>, Option<String>),
}

impl Sentinels {
    /// `None` if the address is not one of theirs. Nothing is sent.
    ///
    /// # Errors
    /// [`StoreError::Setup`] if it is not valid; it is not repeated.
    pub fn new(url: &str, authorities: Option<Vec<u8>>, answer_within: Duration) -> Result<Option<Self>, StoreError> {
        let Some((rest, has_tls)) = SCHEMES.iter().find_map(|(scheme, tls)| Some((url.strip_prefix(scheme)?, *tls)))
        else {
            return Ok(None);
        };
        let address = Address::parse(rest, has_tls).map_err(|what| fault(&what))?;
        let name = Arc::from(address.name.as_str());
        let client = address.client(authorities).map_err(|e| fault(&format!("{:?}", e.kind())))?;
        let patience = PATIENCE.max(answer_within);
        Ok(Some(Self { client: Arc::new(Mutex::new(client)), name, patience }))
    }

    /// The primary of this moment, as a Sentinel tells it, and as it says itself.
    ///
    /// # Errors
    /// If no Sentinel answers in time, none knows the name, or the primary is not there: then they will soon choose another.
    pub async fn primary(&self) -> RedisResult<Client> {
        let asked = async {
            let mut client = self.client.lock().await;
            match client.async_get_client().await {
                Err(error) if error.kind() == ErrorKind::MasterNameNotFoundBySentinel => {
                    Err(self.not_found(&mut client).await.unwrap_or_else(|error| error))
                }
                answer => answer,
            }
        };
        let answer = timeout(self.patience, asked)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        answer.map_err(|error| {
            if error.is_io_error() || error.is_connection_dropped() {
                return passing(format!(
                    "the Sentinels, or the primary `{}` that they report, do not answer: {error}",
                    self.name
                ));
            }
            if error.kind() == ErrorKind::AuthenticationFailed {
                let who = "the Sentinels, or the primary that they report, refuse the user or its password";
                return RedisError::from((ErrorKind::AuthenticationFailed, who));
            }
            error
        })
    }

    /// The client does not tell a primary that is down from a name that nobody knows.
    async fn not_found(&self, client: &mut SentinelClient) -> RedisResult<RedisError> {
        let mut connection = client.async_get_sentinel_client().await?.get_multiplexed_async_connection().await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&*self.name);
        let known: Option<(String, u16)> = question.query_async(&mut connection).await?;
        Ok(match known {
            Some((host, port)) => passing(format!("the primary `{}`, at {host} port {port}, is down", self.name)),
            None => {
                let what = format!("no Sentinel knows a primary named `{}`", self.name);
                RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, "the name in its address", what))
            }
        })
    }
}

/// An error after which one tries again.
pub fn passing(what: String) -> RedisError {
    io::Error::other(what).into()
}

fn fault(what: &str) -> StoreError {
    StoreError::Setup(format!("invalid address: {what}"))
}

impl Address {
    fn parse(rest: &str, has_tls: bool) -> Result<Self, String> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, places) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let mut parts = path.trim_end_matches('/').split('/');
        let name = decoded(parts.next().unwrap_or_default())?.ok_or("expected the primary's name after the hosts")?;
        let database = parts.next().map_or(Ok(0), i64::from_str).ok().filter(|number| *number >= 0);
        let database = database.ok_or("expected a database number after the primary's name")?;
        if parts.next().is_some() {
            return Err("expected nothing after the database number".to_string());
        }
        let mut sentinel = (None, None);
        for field in query.split('&').filter(|field| !field.is_empty()) {
            match field.split_once('=') {
                Some(("sentinel_user", value)) => sentinel.0 = decoded(value)?,
                Some(("sentinel_password", value)) => sentinel.1 = decoded(value)?,
                _ => return Err("expected only `sentinel_user=` and `sentinel_password=` after `?`".to_string()),
            }
        }
        let places = places.split(',').map(place).collect::<Option<_>>();
        let places = places.ok_or("expected hosts separated by commas, each with an optional `:` and port")?;
        Ok(Self { has_tls, places, name, database, data: (decoded(user)?, decoded(password)?), sentinel })
    }

    fn client(self, authorities: Option<Vec<u8>>) -> RedisResult<SentinelClient> {
        let addresses = self.places.into_iter().map(|(host, port)| {
            if self.has_tls {
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            } else {
                ConnectionAddr::Tcp(host, port)
            }
        });
        let mut builder = SentinelClientBuilder::new(addresses, self.name, SentinelServerType::Master)?
            .set_client_to_redis_db(self.database);
        if let Some(user) = self.data.0 {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = self.data.1 {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(user) = self.sentinel.0 {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = self.sentinel.1 {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if self.has_tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(authorities) = authorities {
            // Refused without TLS.
            let trusted = || TlsCertificates { client_tls: None, root_cert: Some(authorities.clone()) };
            builder =
                builder.set_client_to_redis_certificates(trusted()).set_client_to_sentinel_certificates(trusted());
        }
        builder.build()
    }
}

/// A part of an address without its escapes; `None` if it is empty.
fn decoded(part: &str) -> Result<Option<String>, String> {
    let text = percent_decode_str(part).decode_utf8().map_err(|_| "its escapes are not valid UTF-8".to_string())?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

/// Host and port, from `host`, `host:port`, `[address]` or `[address]:port`.
fn place(text: &str) -> Option<(String, u16)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(text) => text.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None if rest.is_empty() => PORT,
        None => return None,
    };
    (!host.is_empty()).then(|| (host.to_string(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let text = "me:p%40ss:w@a:1,b,[::1]:2,[::2]/mine/3?sentinel_user=s&sentinel_password=%26";
        let address = Address::parse(text, true).unwrap();
        let places = [("a", 1), ("b", PORT), ("::1", 2), ("::2", PORT)].map(|(host, port)| (host.to_string(), port));
        assert_eq!((address.places.as_slice(), address.name.as_str(), address.database), (&places[..], "mine", 3));
        assert_eq!(address.data, (Some("me".to_string()), Some("p@ss:w".to_string())));
        assert_eq!(address.sentinel, (Some("s".to_string()), Some("&".to_string())));
        let least = Address::parse("a/mine", false).unwrap();
        assert_eq!((least.database, least.data, least.sentinel), (0, (None, None), (None, None)));
        // A password without a user, as before Redis 6.
        assert_eq!(Address::parse(":p@a/mine/", false).unwrap().data, (None, Some("p".to_string())));
    }

    #[test]
    fn faulty_addresses_are_refused_and_not_repeated() {
        for rest in [
            "hunter2",
            "hunter2/",
            "u:hunter2@/m",
            "u:hunter2@a,/m",
            "u:hunter2@a:0/m",
            "u:hunter2@a:x/m",
            "u:hunter2@::1/m",
            "u:hunter2@[::1/m",
            "u:hunter2@a/m/x",
            "u:hunter2@a/m/-1",
            "u:hunter2@a/m/1/2",
            "u:hunter2%ff@a/m",
            "u@a/m?sentinel_pass=hunter2",
            "u@a/m?hunter2",
        ] {
            let error = Sentinels::new(&format!("redis+sentinel://{rest}"), None, PATIENCE).err().unwrap();
            let StoreError::Setup(what) = &error else { panic!("{rest}: {error:?}") };
            assert!(what.contains("invalid address") && !what.contains("hunter2"), "{rest}: {what}");
        }
        assert!(Sentinels::new("redis://a/m", None, PATIENCE).unwrap().is_none());
        assert!(Sentinels::new("rediss+sentinel://a/m", None, PATIENCE).unwrap().is_some());
        // Authorities are for TLS.
        assert!(Sentinels::new("redis+sentinel://a/m", Some(vec![]), PATIENCE).is_err());
    }
}
