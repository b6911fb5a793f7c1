//! Where the broker is, and what is ours on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::operator_file::OperatorFile;
use crate::queue::QueueError;
use crate::server_address::ServerAddress;

/// Largest file of authorities, in bytes.
const LARGEST_AUTHORITIES: u64 = 1 << 20;

/// Where the broker is, and what is ours on it.
#[derive(Clone)]
pub struct RabbitMqSettings {
    /// `amqp://[user:password@]host[:port][/virtual-host]`, or `amqps://` for TLS. Holds a secret: never shown.
    pub url: ServerAddress,
    /// PEM file of the authorities to trust for `amqps`, in place of the well-known ones. Read once.
    pub ca_file: Option<OperatorFile>,
    /// First part of all names: installations on one broker do not see each other. Letters, digits and `+ - . _`.
    pub installation: String,
    /// How the broker's own tools name the connections: that of the host or pod.
    pub connection_name: String,
    /// A connection that is silent for twice this long is given up. Whole seconds, at least 1.
    pub heartbeat: Duration,
    /// Longest wait for an answer of the broker to one request, whatever the patience of a call.
    pub timeout: Duration,
}

impl fmt::Debug for RabbitMqSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address only as far as it holds no secret.
        let place = self.address().map(|uri| format!("{}:{}", uri.authority.host, uri.authority.port));
        f.debug_struct("RabbitMqSettings")
            .field("place", &place.unwrap_or_default())
            .field("ca_file", &self.ca_file)
            .field("installation", &self.installation)
            .field("connection_name", &self.connection_name)
            .field("heartbeat", &self.heartbeat)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// Settings that were looked at. It has no `Debug`: the address holds a secret.
#[derive(Clone)]
pub struct Checked {
    /// The address as it was when it was looked at; [`Checked::uri`] reads it anew.
    first: AMQPUri,
    address: ServerAddress,
    heartbeat: u16,
    /// `None` for plain AMQP.
    pub tls: Option<Arc<ClientConfig>>,
    pub installation: String,
    pub connection_name: String,
    pub timeout: Duration,
}

impl RabbitMqSettings {
    /// Looks at the settings; nothing is sent.
    pub(super) fn check(&self) -> Result<Checked, QueueError> {
        let fault = |what: &str| QueueError::Setup(what.to_string());
        if !crate::task::is_id(&self.installation) {
            return Err(fault("the installation's name: expected letters, digits and `+ - . _`"));
        }
        let uri = self.address()?;
        let seconds = u16::try_from(self.heartbeat.as_secs()).ok().filter(|seconds| *seconds > 0);
        let heartbeat = seconds.ok_or_else(|| fault("heartbeat: expected 1 to 65535 s"))?;
        if self.timeout.is_zero() {
            return Err(fault("timeout: expected more than 0"));
        }
        let tls = match (&uri.scheme, &self.ca_file) {
            (AMQPScheme::AMQPS, ca_file) => Some(client_config(ca_file.as_ref())?),
            (AMQPScheme::AMQP, None) => None,
            (AMQPScheme::AMQP, Some(_)) => {
                return Err(fault("a CA file can only be used with an address that begins with amqps://"));
            }
        };
        Ok(Checked {
            first: uri,
            address: self.url.clone(),
            heartbeat,
            tls,
            installation: self.installation.clone(),
            connection_name: self.connection_name.chars().take(100).collect(),
            timeout: self.timeout,
        })
    }

    fn address(&self) -> Result<AMQPUri, QueueError> {
        uri(&self.url.read().map_err(QueueError::Setup)?)
    }
}

impl Checked {
    /// The address for the next connection. One in a file is read again, as its password may be another by now; where that is not possible, the first
    /// one is used.
    pub fn uri(&self) -> AMQPUri {
        let again = self.address.read().ok().and_then(|url| uri(&url).ok());
        // Whether the connection is encrypted was settled at the start.
        let mut uri = again.filter(|uri| uri.scheme == self.first.scheme).unwrap_or_else(|| self.first.clone());
        uri.query.heartbeat = Some(self.heartbeat);
        uri
    }

    /// Whether reading the address again can give another password.
    pub fn may_change(&self) -> bool {
        self.address.may_change()
    }
}

/// The parser's own messages may hold the address, and with it the password: they are not passed on.
fn uri(url: &str) -> Result<AMQPUri, QueueError> {
    let fault = |what: &str| QueueError::Setup(format!("invalid address: {what}"));
    if !url.starts_with("amqp://") && !url.starts_with("amqps://") {
        return Err(fault("expected amqp:// or amqps://"));
    }
    let authority = url.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    // The parser takes these for localhost.
    if host.starts_with('[') || host.is_empty() || host.starts_with(':') {
        return Err(fault("expected a host name or an IPv4 address"));
    }
    let mut uri: AMQPUri = url.parse().map_err(|_| fault("expected amqp://user:password@host:port/virtual-host"))?;
    // As people write it: `amqp://host/` means the default virtual host, not one without a name.
    if uri.vhost.is_empty() {
        uri.vhost = "/".to_string();
    }
    Ok(uri)
}

fn client_config(ca_file: Option<&OperatorFile>) -> Result<Arc<ClientConfig>, QueueError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            let fault = |what: &dyn fmt::Display| QueueError::Setup(format!("{file}: {what}"));
            let pem = file.read(LARGEST_AUTHORITIES).map_err(|e| fault(&e))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.map_err(|e| fault(&e))?).map_err(|e| fault(&e))?;
            }
            if roots.is_empty() {
                return Err(fault(&"contains no certificate"));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| QueueError::Setup(format!("TLS: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> RabbitMqSettings {
        RabbitMqSettings {
            url: url.into(),
            ca_file: None,
            installation: "i".to_string(),
            connection_name: "c".to_string(),
            heartbeat: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
        }
    }

    #[test]
    fn good_addresses_are_read_and_bad_ones_told_without_their_password() {
        let good = settings("amqp://me:se%40cret@broker:7777/%2Fmine").check().unwrap_or_else(|e| panic!("{e}"));
        let (authority, user) = (&good.first.authority, &good.first.authority.userinfo);
        assert_eq!((authority.host.as_str(), authority.port, good.first.vhost.as_str()), ("broker", 7777, "/mine"));
        assert_eq!((user.username.as_str(), user.password.as_str()), ("me", "se@cret"));
        for plain in ["amqp://host", "amqp://host/", "amqp://host/%2f"] {
            let good = settings(plain).check().unwrap_or_else(|e| panic!("{plain}: {e}"));
            assert_eq!((good.first.vhost.as_str(), good.first.authority.port), ("/", 5672), "{plain}");
        }
        let tls = settings("amqps://host").check().unwrap_or_else(|e| panic!("{e}"));
        assert!(tls.tls.is_some() && tls.first.authority.port == 5671);
        for bad in [
            "",
            "http://me:secret@host/",
            "amqp:me:secret@host",
            "amqp://me:secret@/",
            "amqp://me:secret@[::1]/",
            "amqp://me:secret@host:99999999/",
            "amqp://me:secret@host/?heartbeat=secret",
        ] {
            let error = settings(bad).check().err().unwrap_or_else(|| panic!("{bad}: taken"));
            assert!(matches!(error, QueueError::Setup(_)), "{bad}: {error:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let shown = format!("{:?}", settings("amqp://me:secret@host/"));
        assert!(shown.contains("host:5672") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn other_bad_settings_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, garbage) = (folder.path().join("empty.pem"), folder.path().join("garbage.pem"));
        std::fs::write(&empty, "no certificate").unwrap();
        std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let (plain, tls) = (settings("amqp://host"), settings("amqps://host"));
        for (what, bad) in [
            ("installation", RabbitMqSettings { installation: "a b".to_string(), ..plain.clone() }),
            ("heartbeat", RabbitMqSettings { heartbeat: Duration::from_millis(200), ..plain.clone() }),
            ("timeout", RabbitMqSettings { timeout: Duration::ZERO, ..plain.clone() }),
            ("amqps://", RabbitMqSettings { ca_file: Some(OperatorFile::new(&empty)), ..plain.clone() }),
            ("empty.pem", RabbitMqSettings { ca_file: Some(OperatorFile::new(empty)), ..tls.clone() }),
            ("garbage.pem", RabbitMqSettings { ca_file: Some(OperatorFile::new(garbage)), ..tls.clone() }),
            ("none.pem", RabbitMqSettings { ca_file: Some(OperatorFile::new(folder.path().join("none.pem"))), ..tls }),
        ] {
            let error = bad.check().err().unwrap_or_else(|| panic!("{what}: taken"));
            assert!(matches!(&error, QueueError::Setup(text) if text.contains(what)), "{what}: {error}");
        }
    }
}
