//! Listening, and HTTP connections within limits.
//!
//! Whoever reaches a port can open connections and say nothing, or next to nothing. No connection
//! lasts without an end, and no number of them keeps others out:
//!
//! - A request's head has [`Limits::head`], its body [`Limits::body`] in all, and a connection
//!   without a request [`Limits::idle`]. A client that takes less than 16 KiB of an answer in
//!   [`Limits::unread`] is cut off.
//! - There are at most [`Limits::connections`], and [`Limits::per_client`] of one address. At the
//!   limit a new connection takes the place of another, of the same client if that has too many:
//!   first of the one that has waited longest without sending a whole request, else of one that
//!   does not read its answer. A probe sends its request at once, so it is answered, however many
//!   connections are held open. A reserve for probes would not do: before its request nothing tells
//!   a probe from others.
//!
//! | file | holds |
//! |---|---|
//! | `bind` | listening on an address |
//! | `table` | who is connected, and who is closed |
//! | `connection` | one connection |

mod bind;
mod connection;
mod table;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

pub use self::bind::bind;
pub use self::connection::SlowBody;
use self::table::{Closed, Table};

/// Most connections, where the system gives enough files.
const CONNECTIONS: usize = 512;
/// Wait after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// Shortest time between two lines of the log about closed connections.
const QUIET: Duration = Duration::from_secs(10);

/// What connections may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most connections.
    pub connections: usize,
    /// Most connections of one client: of one IPv4 address, or one network of IPv6 (`/64`).
    pub per_client: usize,
    /// Longest time for the head of a request, from its first byte or the beginning of the connection.
    pub head: Duration,
    /// Longest time for the body of a request.
    pub body: Duration,
    /// Longest time between two requests.
    pub idle: Duration,
    /// Longest time in which a client takes less than 16 KiB of an answer that waits for it.
    pub unread: Duration,
}

impl Default for Limits {
    /// As many connections as half of the files that this process may open, 512 at most, and half
    /// of them for one client.
    fn default() -> Self {
        let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
        let connections = (files.unwrap_or(usize::MAX) / 2).clamp(8, CONNECTIONS);
        Self {
            connections,
            per_client: connections / 2,
            head: Duration::from_secs(10),
            body: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            unread: Duration::from_secs(60),
        }
    }
}

/// Serves within the usual limits; see [`serve_within`].
///
/// # Errors
/// As there.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    patience: Duration,
) -> io::Result<()> {
    serve_within(Limits::default(), listener, router, stop, patience).await
}

/// Serves until `stop` is done. Then no connection is taken any more, and requests on their way have
/// `patience` to end.
///
/// # Errors
/// None so far: a connection that cannot be accepted is tried again.
pub async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    patience: Duration,
) -> io::Result<()> {
    let table = Arc::new(Table::new(limits));
    let (stopping, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut log = Log::default();
    let shortest = [limits.head, limits.idle, limits.unread].into_iter().min().unwrap_or(limits.head);
    let mut ticks = interval((shortest / 8).clamp(Duration::from_millis(10), Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = ticks.tick() => log.add(&table.close_overdue(Instant::now())),
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let (seat, closed) = table.admit(peer.ip(), Instant::now());
                    if closed || seat.is_none() {
                        log.add(&[(Closed::Crowded, 1)]);
                    }
                    if let Some(seat) = seat {
                        let (router, stopped) = (router.clone(), stopped.clone());
                        tasks.spawn(connection::answer(stream, seat, router, limits, stopped));
                    }
                }
                Err(error) if is_of_client(&error) => {}
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    // Out of files: what is of the least use makes room.
                    table.close_one(Instant::now());
                    sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let ended = async { while tasks.join_next().await.is_some() {} };
    if timeout(patience, ended).await.is_err() {
        tracing::warn!("aborted requests that took longer than {} s after shutdown began", patience.as_secs());
    }
    Ok(())
}

/// Whether a connection ended before it was accepted.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
        || error.raw_os_error() == Some(Errno::PROTO.raw_os_error())
}

/// What is said about closed connections: now and then, however many there are.
#[derive(Default)]
struct Log {
    said: Option<Instant>,
    head: usize,
    unread: usize,
    crowded: usize,
}

impl Log {
    fn add(&mut self, closed: &[(Closed, usize)]) {
        for (reason, count) in closed {
            match reason {
                Closed::Head => self.head += count,
                Closed::Unread => self.unread += count,
                Closed::Crowded => self.crowded += count,
                // That is how most connections end.
                Closed::Idle => {}
            }
        }
        let is_due = self.said.is_none_or(|said| said.elapsed() >= QUIET);
        if is_due && self.head + self.unread + self.crowded > 0 {
            let Self { head, unread, crowded, .. } = *self;
            tracing::warn!(
                "closed HTTP connections: {head} sent no request in time, {unread} did not read \
                 the response, {crowded} were too many"
            );
            *self = Self { said: Some(Instant::now()), ..Self::default() };
        }
    }
}
