//! Keeps one connection up: connects and declares, for ever, with growing pauses drawn at random, so that a broker that comes back is not overrun.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::link::Link;
use super::settings::Checked;
use super::topology::Topology;
use crate::queue::QueueError;
use crate::retry::pauses;

/// Pauses between attempts: doubled from the first to the last, each with up to as much again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

/// A connection that stood for so long makes the pauses short again.
const STEADY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
enum Line {
    /// With the reason; without one before the first attempt.
    Down(Option<QueueError>),
    Up(Arc<Link>),
    Closed,
}

/// Keeps a connection up, until it is dropped.
#[derive(Debug)]
pub struct Supervisor {
    line: Arc<watch::Sender<Line>>,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Begins to connect, on the runtime of the caller.
    pub fn start(settings: Checked, purpose: &'static str, topology: Topology) -> Self {
        let line = Arc::new(watch::Sender::new(Line::Down(None)));
        let task = tokio::spawn(run(settings, purpose, topology, Arc::clone(&line)));
        Self { line, task }
    }

    /// The connection, as soon as it is up.
    ///
    /// # Errors
    /// A fault that a person has to mend, at once; else why there was none by `deadline`.
    pub async fn link(&self, deadline: Instant) -> Result<Arc<Link>, QueueError> {
        let mut line = self.line.subscribe();
        loop {
            let now = line.borrow_and_update().clone();
            let fault = match now {
                Line::Up(link) if link.is_up() => return Ok(link),
                Line::Closed => return Err(QueueError::Closed),
                Line::Down(Some(fault)) if !fault.is_retryable() => return Err(fault),
                Line::Down(Some(fault)) => fault,
                Line::Down(None) | Line::Up(_) => lost(),
            };
            // It has an end only when the sender is gone, which we hold.
            if !matches!(timeout_at(deadline, line.changed()).await, Ok(Ok(()))) {
                return Err(fault);
            }
        }
    }

    /// The connection if it is up, else why not.
    pub fn now(&self) -> Result<Arc<Link>, QueueError> {
        match &*self.line.borrow() {
            Line::Up(link) if link.is_up() => Ok(Arc::clone(link)),
            Line::Up(_) => Err(lost()),
            Line::Down(fault) => Err(fault.clone().unwrap_or_else(lost)),
            Line::Closed => Err(QueueError::Closed),
        }
    }

    /// Ends the connection for good.
    pub async fn close(&self) {
        self.task.abort();
        if let Line::Up(link) = self.line.send_replace(Line::Closed) {
            link.close().await;
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lost() -> QueueError {
    QueueError::Unreachable("not connected".to_string())
}

/// What a fault of connecting means. What was right once can become so again while this program
/// waits. An address that was never right, and cannot be read anew, cannot.
fn weighed(fault: QueueError, was_up: bool, may_change: bool) -> QueueError {
    match fault {
        QueueError::Setup(what) | QueueError::Foreign(what) if was_up => QueueError::Refused(what),
        QueueError::Refused(what) if !was_up && !may_change && is_of_address(&what) => QueueError::Setup(what),
        other => other,
    }
}

/// Whether a refusal is one of the user, its password or the virtual host, by the broker's own
/// words. Missing permissions are none: they are given on the broker.
fn is_of_address(what: &str) -> bool {
    what.contains("Login was refused") || (what.contains("vhost") && what.contains("not found"))
}

async fn run(settings: Checked, purpose: &'static str, topology: Topology, line: Arc<watch::Sender<Line>>) {
    // Whoever closes it has the last word, also if that happens while this is about to say something.
    let say = |new: Line| {
        line.send_if_modified(|line| {
            let is_open = !matches!(line, Line::Closed);
            if is_open {
                *line = new;
            }
            is_open
        })
    };
    let fresh = || pauses(PAUSES.0, PAUSES.1);
    let mut delays = fresh();
    let mut was_up = false;
    loop {
        let fault = match Link::open(&settings, purpose, &topology).await {
            Ok(link) => {
                let (link, since) = (Arc::new(link), Instant::now());
                if !say(Line::Up(Arc::clone(&link))) {
                    return link.close().await;
                }
                was_up = true;
                link.down().await;
                if since.elapsed() >= STEADY {
                    delays = fresh();
                }
                QueueError::Unreachable("the connection was lost".to_string())
            }
            Err(fault) => weighed(fault, was_up, settings.may_change()),
        };
        if !say(Line::Down(Some(fault))) {
            return;
        }
        sleep(delays.next().unwrap_or(PAUSES.1)).await;
    }
}
