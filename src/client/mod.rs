//! A client of the scheduler's HTTP API: one blocking call a request, each with a deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, Request};
use ureq::tls::{PemItem, RootCerts, TlsConfig};

use crate::api_types::{ErrorBody, ErrorDetail};
use crate::config::Secret;
use crate::operator_file::OperatorFile;

/// Largest answer that is read, in bytes: results of a hundred thousand tasks, or a coefficients file.
const LARGEST_ANSWER: u64 = 1 << 30;
/// Largest file of authorities, in bytes.
const LARGEST_AUTHORITIES: u64 = 1 << 20;
/// Wait before the second try; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(200);
/// No try begins later: a server that restarts is back by then, and a wrong address is told soon.
const TRIES: Duration = Duration::from_secs(4);

/// Where the scheduler is.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Its address, without a slash at the end.
    pub server: String,
    /// Bearer token. Never shown.
    pub token: Option<Secret>,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Authorities to trust for https, in place of the well-known ones.
    pub ca_file: Option<OperatorFile>,
}

/// Why a request was not done, by what the caller does next. No message holds the token.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Settings cannot be right: a person has to change them.
    #[error("{0}")]
    Setup(String),
    /// The server refuses it, and would again.
    #[error("{server} refused the request ({status}): {}", words(.detail))]
    Refused {
        /// The server.
        server: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        detail: ErrorDetail,
    },
    /// Nobody there, no answer in time, or not now. It may have been done; it can be repeated.
    #[error("{server}: {what}")]
    Unavailable {
        /// The server.
        server: String,
        /// What went wrong.
        what: String,
    },
    /// An answer that is not this API's.
    #[error("unexpected answer from {server}: {what}")]
    Strange {
        /// The server.
        server: String,
        /// What is wrong with it.
        what: String,
    },
}

fn words(detail: &ErrorDetail) -> String {
    let mut text = detail.message.clone();
    for fault in &detail.faults {
        let place = fault.place.map(|place| format!("line {}, column {}: ", place.line, place.column));
        let path = if fault.path.is_empty() { String::new() } else { format!("{}: ", fault.path) };
        text.push_str(&format!("\n  {}{path}{}", place.unwrap_or_default(), fault.message));
    }
    text
}

/// A client. Every request of it may be repeated: creations carry a key, and the rest changes nothing the second time.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    settings: ClientSettings,
}

impl Client {
    /// A client with these settings; connects to nothing yet.
    ///
    /// # Errors
    /// [`ClientError::Setup`] if the file of authorities cannot be read.
    pub fn new(settings: ClientSettings) -> Result<Self, ClientError> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(settings.timeout));
        if let Some(file) = &settings.ca_file {
            let fault = |what: String| ClientError::Setup(format!("client.ca_file {}: {what}", file));
            let pem = file.read(LARGEST_AUTHORITIES).map_err(|e| fault(e.to_string()))?;
            let mut authorities = Vec::new();
            for item in ureq::tls::parse_pem(&pem) {
                if let PemItem::Certificate(certificate) = item.map_err(|e| fault(e.to_string()))? {
                    authorities.push(certificate);
                }
            }
            if authorities.is_empty() {
                return Err(fault("expected certificates in PEM, found none".to_string()));
            }
            config =
                config.tls_config(TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(authorities))).build());
        }
        Ok(Self { agent: ureq::Agent::new_with_config(config.build()), settings })
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        &self.settings.server
    }

    /// Asks for something.
    ///
    /// # Errors
    /// As [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(&self.request(&Method::GET, path, &[])?)
    }

    /// Asks for a file.
    ///
    /// # Errors
    /// As [`ClientError`].
    pub fn get_bytes(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        self.request(&Method::GET, path, &[])
    }

    /// Has something done.
    ///
    /// # Errors
    /// As [`ClientError`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: Option<&impl Serialize>) -> Result<T, ClientError> {
        let bytes = body.map(serde_json::to_vec).transpose().map_err(|e| self.strange(e.to_string()))?;
        self.read(&self.request(&Method::POST, path, &bytes.unwrap_or_default())?)
    }

    /// Has something removed.
    ///
    /// # Errors
    /// As [`ClientError`].
    pub fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.request(&Method::DELETE, path, &[]).map(drop)
    }

    /// Tries until there is an answer that another try would not change, as long as there is time.
    fn request(&self, method: &Method, path: &str, body: &[u8]) -> Result<Vec<u8>, ClientError> {
        let (began, mut pause) = (Instant::now(), PAUSE);
        loop {
            match self.once(method, path, body) {
                Err(error @ ClientError::Unavailable { .. })
                    if began.elapsed() + pause < TRIES.min(self.settings.timeout) =>
                {
                    drop(error);
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                answer => return answer,
            }
        }
    }

    fn once(&self, method: &Method, path: &str, body: &[u8]) -> Result<Vec<u8>, ClientError> {
        let server = &self.settings.server;
        let mut request = Request::builder().method(method).uri(format!("{server}{path}"));
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(token) = &self.settings.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        let invalid = |_| {
            ClientError::Setup(format!("{server}{path}: invalid address, or the token contains invalid characters"))
        };
        let request = request.body(body).map_err(invalid)?;
        let unavailable = |what: String| ClientError::Unavailable { server: server.clone(), what };
        let mut answer = self.agent.run(request).map_err(|error| unavailable(error.to_string()))?;
        let status = answer.status().as_u16();
        let bytes = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec();
        let bytes = bytes.map_err(|error| unavailable(error.to_string()))?;
        if (200..300).contains(&status) {
            return Ok(bytes);
        }
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) if status >= 500 => Err(unavailable(format!("{} ({status})", body.error.message))),
            Ok(body) => Err(ClientError::Refused { server: server.clone(), status, detail: body.error }),
            Err(_) if status >= 500 => Err(unavailable(format!("status {status}"))),
            Err(_) => Err(self.strange(format!("status {status}; is it a mehl-soup scheduler?"))),
        }
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(bytes).map_err(|error| self.strange(error.to_string()))
    }

    fn strange(&self, what: String) -> ClientError {
        ClientError::Strange { server: self.settings.server.clone(), what }
    }
}
