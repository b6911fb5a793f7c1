//! Connecting, and looking whether a server can be trusted with state.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManagerConfig};
use redis::{Client, ErrorKind, InfoDict, RedisError, RedisResult, TlsCertificates, Value};

use super::answers;
use super::confirm::Promise;
use super::line::ReconnectingConnection;
use super::sentinel::Sentinels;
use crate::operator_file::OperatorFile;
use crate::server_address::ServerAddress;
use crate::store::StoreError;

/// Largest file of authorities, in bytes: those of a whole system have a quarter of it.
const LARGEST_AUTHORITIES: u64 = 1 << 20;

/// Where the server is, and what is ours on it.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS; or `redis+sentinel://[user:password@]host[:port],host[:port]/name[/database]`
    /// and `rediss+sentinel://`, with the Sentinels' own user in `?sentinel_user=` and `sentinel_password=`. Holds a secret: never shown.
    pub url: ServerAddress,
    /// PEM file of the authorities to trust for TLS, in place of the well-known ones. Read once.
    pub ca_file: Option<OperatorFile>,
    /// First part of all keys: installations on one server do not see each other. Letters, digits and `+ - . _`.
    pub installation: String,
    /// Longest time to wait for an answer.
    pub timeout: Duration,
}

/// Tells where the server is, whenever a connection is made.
#[derive(Clone)]
pub struct Source(Arc<Place>);

struct Place {
    address: ServerAddress,
    authorities: Option<Vec<u8>>,
    answer_within: Duration,
    /// The address as it was read last, and what it means.
    known: Mutex<(String, Server)>,
}

#[derive(Clone)]
enum Server {
    /// Always there.
    Fixed(Client),
    /// Where Sentinels say.
    Told(Sentinels),
}

impl Source {
    fn new(settings: &RedisSettings, authorities: Option<Vec<u8>>) -> Result<Self, StoreError> {
        let url = settings.url.read().map_err(StoreError::Setup)?;
        let server = server(&url, authorities.clone(), settings.timeout)?;
        Ok(Self(Arc::new(Place {
            address: settings.url.clone(),
            authorities,
            answer_within: settings.timeout,
            known: Mutex::new((url, server)),
        })))
    }

    /// The server of this moment. An address in a file is read again, as its password may be another by now.
    pub async fn client(&self) -> RedisResult<Client> {
        match self.server() {
            Server::Fixed(client) => Ok(client),
            Server::Told(sentinels) => sentinels.primary().await,
        }
    }

    /// As the address says now; as it said last if it cannot be read now.
    fn server(&self) -> Server {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(url) = self.0.address.read()
            && url != known.0
        {
            match server(&url, self.0.authorities.clone(), self.0.answer_within) {
                Ok(server) => *known = (url, server),
                Err(error) => tracing::warn!("cannot use the new address of Redis: {error}"),
            }
        }
        known.1.clone()
    }

    /// Whether another server may take its place.
    pub fn may_move(&self) -> bool {
        matches!(self.0.known.lock().unwrap_or_else(PoisonError::into_inner).1, Server::Told(_))
    }
}

/// A connection that makes itself anew, checked; how others are made; and what the server promises.
pub async fn connect(settings: &RedisSettings) -> Result<(ReconnectingConnection, Source, Promise), StoreError> {
    if !crate::task::is_id(&settings.installation) {
        return Err(StoreError::Setup("the installation's name: expected letters, digits and `+ - . _`".to_string()));
    }
    let authorities = settings.ca_file.as_ref().map(|file| {
        let named = |e: std::io::Error| StoreError::Setup(format!("redis.ca_file {}: {e}", file));
        file.read(LARGEST_AUTHORITIES).map_err(named)
    });
    let source = Source::new(settings, authorities.transpose()?)?;
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(settings.timeout))
        .set_connection_timeout(Some(settings.timeout))
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_secs(2))
        .set_number_of_retries(4);
    let first = |error: RedisError| first_fault(error, settings.url.may_change());
    let mut connection = ReconnectingConnection::open(source.clone(), config).await.map_err(first)?;
    let promise = check(&mut connection, &source).await.map_err(|error| match error {
        // An address without a password connects, and is refused with the first command.
        StoreError::Refused(what) if what.contains("NOAUTH") && !settings.url.may_change() => StoreError::Setup(what),
        other => other,
    })?;
    Ok((connection, source, promise))
}

/// A fault of the first connection. What only another configuration mends is told at once: a user or password that this program cannot read anew, or a
/// name that no Sentinel knows.
fn first_fault(error: RedisError, may_change: bool) -> StoreError {
    let is_final = match error.kind() {
        ErrorKind::InvalidClientConfig | ErrorKind::MasterNameNotFoundBySentinel => true,
        _ => answers::is_refused_login(&error) && !may_change,
    };
    match answers::error(error) {
        StoreError::Refused(what) if is_final => StoreError::Setup(what),
        other => other,
    }
}

fn server(url: &str, authorities: Option<Vec<u8>>, answer_within: Duration) -> Result<Server, StoreError> {
    if let Some(sentinels) = Sentinels::new(url, authorities.clone(), answer_within)? {
        return Ok(Server::Told(sentinels));
    }
    let client = match authorities {
        None => Client::open(url),
        authorities => Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert: authorities }),
    };
    // The client's own message may hold the address, and with it the password.
    client.map(Server::Fixed).map_err(|e| StoreError::Setup(format!("invalid address: {:?}", e.kind())))
}

/// Looks whether a server can be trusted with state, and what it promises.
pub async fn check<C: ConnectionLike>(connection: &mut C, source: &Source) -> Result<Promise, StoreError> {
    let info: InfoDict = redis::cmd("INFO").arg("everything").query_async(connection).await.map_err(answers::error)?;
    if info.get::<String>("cluster_enabled").as_deref() == Some("1") {
        return Err(StoreError::Setup("it is a cluster: expected a single primary, or Sentinel".to_string()));
    }
    if info.get::<String>("role").as_deref() == Some("slave") {
        if source.may_move() {
            return Err(StoreError::Unreachable(
                "it has become a replica, and the Sentinels do not report a new primary yet".to_string(),
            ));
        }
        return Err(StoreError::Setup("it is a replica: expected a primary".to_string()));
    }
    let policy = info.get::<String>("maxmemory_policy").unwrap_or_default();
    if policy != "noeviction" {
        return Err(StoreError::Setup(format!(
            "maxmemory-policy: expected noeviction, found {policy}, which would delete tasks when memory is short"
        )));
    }
    promise(connection, &info).await
}

async fn promise<C: ConnectionLike>(connection: &mut C, info: &InfoDict) -> Result<Promise, StoreError> {
    let known: RedisResult<Vec<Value>> = redis::cmd("COMMAND").arg("INFO").arg("WAITAOF").query_async(connection).await;
    let unconfirmed = |why: &str| Ok(Promise::Unconfirmed(why.to_string()));
    match known {
        Ok(known) if matches!(known.as_slice(), [Value::Array(_)]) => {
            match info.get::<String>("aof_enabled").as_deref() {
                Some("1") => Ok(Promise::Confirmed),
                _ => unconfirmed("its append-only file is off: set appendonly yes"),
            }
        }
        Ok(_) => unconfirmed("it has no WAITAOF: use Redis or Valkey 7.2 or newer"),
        Err(error) if error.code() == Some("NOPERM") => unconfirmed("this user is not allowed to use COMMAND"),
        Err(error) => Err(answers::error(error)),
    }
}
