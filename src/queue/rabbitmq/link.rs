//! One connection to the broker, from the moment that it is up until it is given up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties};
use tokio::time::{Instant, sleep, timeout_at};

use super::faults;
use super::settings::Checked;
use super::topology::Topology;
use super::wire::{self, Switch};
use crate::queue::QueueError;

/// How often it is looked whether a connection still stands. lapin tells its end by ways that differ with who ended it; its state always tells.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// A connection. Its socket ends with it.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    switch: Switch,
    is_given_up: AtomicBool,
    timeout: Duration,
}

impl Link {
    /// Connects, and declares everything.
    pub async fn open(settings: &Checked, purpose: &str, topology: &Topology) -> Result<Self, QueueError> {
        let deadline = Instant::now() + settings.timeout;
        let switch = Switch::default();
        let (holder, tls, timeout) = (switch.holder(), settings.tls.clone(), settings.timeout);
        let connect = async move |uri: lapin::uri::AMQPUri, _| {
            let (host, port) = (&uri.authority.host, uri.authority.port);
            let wire = wire::connect(host, port, tls.clone(), timeout, &holder).await?;
            Ok(AsyncTcpStream::Plain(wire))
        };
        let name = format!("{} {purpose} {}", settings.connection_name, settings.installation);
        let properties = ConnectionProperties::default().with_connection_name(name.as_str().into());
        // What it must not do: connect again by itself. Its default is not to.
        let connecting = Connection::connector(settings.uri(), wire::runtime(), connect, properties);
        let connection = timeout_at(deadline, connecting)
            .await
            .map_err(|_| QueueError::Unreachable(format!("no connection within {:?}", settings.timeout)))?
            .map_err(|e| faults::error(&e))?;
        let link = Self { connection, switch, is_given_up: AtomicBool::new(false), timeout: settings.timeout };
        link.channel(deadline, topology).await?;
        Ok(link)
    }

    /// A channel, with everything declared on it: what was taken away since the last one is there again.
    pub async fn channel(&self, deadline: Instant, topology: &Topology) -> Result<Channel, QueueError> {
        let channel = self.answer(deadline, faults::error, self.connection.create_channel()).await?;
        topology.declare(self, &channel, deadline).await?;
        Ok(channel)
    }

    /// Waits for an answer, at most until `deadline` and at most for the time that the settings give the broker for one; after the latter the
    /// connection is given up, as nothing more will come of it. `read` says what an error means.
    pub async fn answer<T>(
        &self,
        deadline: Instant,
        read: fn(&lapin::Error) -> QueueError,
        asked: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, QueueError> {
        let limit = Instant::now() + self.timeout;
        match timeout_at(deadline.min(limit), asked).await {
            Ok(answer) => answer.map_err(|e| read(&e)),
            Err(_) => {
                if limit <= deadline {
                    self.give_up_unless_blocked();
                }
                Err(self.late())
            }
        }
    }

    /// Like [`answer`](Self::answer), with no other deadline.
    pub async fn answer_soon<T>(&self, asked: impl Future<Output = lapin::Result<T>>) -> Result<T, QueueError> {
        self.answer(Instant::now() + self.timeout, faults::error, asked).await
    }

    /// Why nothing came.
    pub fn late(&self) -> QueueError {
        if self.is_blocked() { blocked() } else { QueueError::Unreachable("no answer in time".to_string()) }
    }

    /// Waits until the broker takes messages.
    pub async fn unblocked(&self, deadline: Instant) -> Result<(), QueueError> {
        while self.is_blocked() && self.is_up() {
            if Instant::now() >= deadline {
                return Err(blocked());
            }
            sleep(POLL_INTERVAL.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
        Ok(())
    }

    /// Waits until it is down.
    pub async fn down(&self) {
        while self.is_up() {
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Whether it stands.
    pub fn is_up(&self) -> bool {
        !self.is_given_up.load(Ordering::Relaxed) && self.connection.status().connected()
    }

    /// Whether the broker said that it takes no messages.
    pub fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Time that the broker has for an answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A blocked broker reads nothing, so its silence means nothing, and the connection is kept: it is what tells when the alarm ends.
    pub fn give_up_unless_blocked(&self) {
        if !self.is_blocked() {
            self.is_given_up.store(true, Ordering::Relaxed);
            self.switch.off();
        }
    }

    /// Takes leave of the broker, for a little while.
    pub async fn close(&self) {
        let patience = self.timeout.min(Duration::from_secs(2));
        if !self.is_blocked() {
            // If it does not answer, the socket's end tells it the same.
            drop(tokio::time::timeout(patience, self.connection.close(200, "closed".into())).await);
        }
        self.is_given_up.store(true, Ordering::Relaxed);
        self.switch.off();
    }
}

fn blocked() -> QueueError {
    QueueError::Blocked("its memory or disk alarm is on".to_string())
}
