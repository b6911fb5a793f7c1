//! A Redis that has `WAITAOF`, made of one that has not: a proxy that puts other commands in its place, whose answers have the same form.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// What `WAITAOF` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// It is on disk.
    Has,
    /// Not in time.
    Late,
    /// Nothing, for ever.
    Silent,
    /// There is no such command after all.
    Unknown,
}

/// The proxy, on a port of its own.
pub struct WithWaitAof {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    disk: Mutex<Disk>,
    asked: AtomicUsize,
    accepted: AtomicUsize,
}

impl WithWaitAof {
    /// To `target`, given as host and port.
    pub fn start(target: &str, disk: Disk) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: target.to_string(),
            disk: Mutex::new(disk),
            asked: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.accepted.fetch_add(1, SeqCst);
                let Ok(server) = TcpStream::connect(&accepting.target) else { continue };
                let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Both));
                });
                let shared = accepting.clone();
                std::thread::spawn(move || {
                    drop(shared.rewrite(&client, &server));
                    drop(server.shutdown(Shutdown::Both));
                });
            }
        });
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// What it answers from now on.
    pub fn set(&self, disk: Disk) {
        *self.shared.disk.lock().unwrap() = disk;
    }

    /// How often `WAITAOF` was asked.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(SeqCst)
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(SeqCst)
    }
}

impl Shared {
    /// Command after command, until either end is gone.
    fn rewrite(&self, client: &TcpStream, mut server: &TcpStream) -> std::io::Result<()> {
        let mut client = BufReader::new(client);
        loop {
            let count = number(&mut client)?;
            let mut words = Vec::new();
            for _ in 0..count {
                let mut word = vec![0; number(&mut client)? + 2];
                client.read_exact(&mut word)?;
                word.truncate(word.len() - 2);
                words.push(word);
            }
            let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
            if let Some(other) = self.in_place_of(&words) {
                words = other.iter().map(|word| word.as_bytes().to_vec()).collect();
                bytes = format!("*{}\r\n", words.len()).into_bytes();
            }
            for word in words {
                bytes.extend(format!("${}\r\n", word.len()).into_bytes());
                bytes.extend(word);
                bytes.extend(b"\r\n");
            }
            server.write_all(&bytes)?;
        }
    }

    fn in_place_of(&self, words: &[Vec<u8>]) -> Option<&'static [&'static str]> {
        let is =
            |place: usize, name: &str| words.get(place).is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()));
        if is(0, "COMMAND") && is(2, "WAITAOF") {
            return Some(&["EVAL", "return {{'waitaof', 4}}", "0"]);
        }
        if !is(0, "WAITAOF") {
            return None;
        }
        self.asked.fetch_add(1, SeqCst);
        match *self.disk.lock().unwrap() {
            Disk::Has => Some(&["EVAL", "return {1, 0}", "0"]),
            Disk::Late => Some(&["EVAL", "return {0, 0}", "0"]),
            Disk::Silent => Some(&["BLPOP", "nothing-is-ever-here", "0"]),
            Disk::Unknown => None,
        }
    }
}

/// The number of a line such as `*3` or `$10`.
fn number(from: &mut impl BufRead) -> std::io::Result<usize> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    line.get(1..).and_then(|rest| rest.trim_end().parse().ok()).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}
