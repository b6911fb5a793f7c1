//! The socket under a connection: with a deadline, with or without TLS, and with a switch that ends it from outside.
//!
//! lapin has TLS of its own, at the price of some thirty crates for client certificates that are not used here. So it is given a reactor whose
//! streams are ready made.
//!
//! The switch is there because a connection that nobody answers cannot be closed in its own words: lapin's thread would wait for as long as the socket
//! does, with all that it still has to send.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_core::Stream;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// What lapin runs on: tokio, with our streams.
pub type TokioRuntime = RuntimeParts<Tokio, TokioReactor>;

/// A stream of bytes, encrypted or not.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A stream as lapin takes it.
pub type Wire = Compat<Box<dyn Bytes>>;

/// On the tokio runtime of the caller.
pub fn runtime() -> Runtime<TokioRuntime> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), TokioReactor(tokio)))
}

/// tokio's reactor; only its streams are others.
#[derive(Debug, Clone)]
pub struct TokioReactor(Tokio);

impl Reactor for TokioReactor {
    type TcpStream = Wire;
    type Sleep = <Tokio as Reactor>::Sleep;

    // Sockets of others: nothing asks for it, and the trait that it would need is private.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static> {
        Err::<Wire, _>(io::Error::from(io::ErrorKind::Unsupported))
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    #[expect(clippy::manual_async_fn, reason = "the trait asks for a future that does not borrow")]
    fn tcp_connect_addr(&self, address: SocketAddr) -> impl Future<Output = io::Result<Wire>> + Send + 'static {
        async move { Ok(boxed(TcpStream::connect(address).await?)) }
    }
}

fn boxed(bytes: impl Bytes + 'static) -> Wire {
    let bytes: Box<dyn Bytes> = Box::new(bytes);
    bytes.compat()
}

/// Ends a socket from outside, even before it is there. Ends it also when it is dropped.
#[derive(Default)]
pub struct Switch(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    socket: Option<std::net::TcpStream>,
    is_off: bool,
}

impl Switch {
    /// For the one who connects.
    pub fn holder(&self) -> SwitchHolder {
        SwitchHolder(Arc::clone(&self.0))
    }

    /// Ends the socket, now or as soon as it is there. Whoever reads or writes it sees its end at once.
    pub fn off(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.is_off = true;
        if let Some(socket) = held.socket.take() {
            // It may have ended by itself.
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.off();
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Switch")
    }
}

/// The other end of a [`Switch`].
#[derive(Clone)]
pub struct SwitchHolder(Arc<Mutex<Held>>);

impl SwitchHolder {
    fn hold(&self, stream: &TcpStream) -> io::Result<()> {
        // Another name of the same socket.
        let socket = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_off {
            return Err(io::Error::other("the connection was closed"));
        }
        held.socket = Some(socket);
        Ok(())
    }
}

/// Connects to the first address of a host that answers, and speaks TLS with it if so configured.
pub async fn connect(
    host: &str,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    patience: Duration,
    switch: &SwitchHolder,
) -> io::Result<Wire> {
    let connected = tokio::time::timeout(patience, async {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        switch.hold(&stream)?;
        match tls {
            None => Ok(boxed(stream)),
            Some(config) => {
                let name = ServerName::try_from(host.to_string()).map_err(io::Error::other)?;
                Ok(boxed(TlsConnector::from(config).connect(name, stream).await?))
            }
        }
    });
    connected.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
}
