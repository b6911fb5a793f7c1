//! A bad network between any two parts: a TCP proxy that can cut, delay and swallow bytes, in either direction.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They arrive.
    Pass,
    /// They arrive after so long.
    Delay(Duration),
    /// They vanish: the sender does not notice, as its side takes them.
    Swallow,
    /// They are not taken: the sender's buffers fill up.
    Hold,
    /// The next ones end the connection, and vanish.
    Cut,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who connected.
    ToServer,
    /// To who connected.
    ToClient,
}

/// A proxy on a port of its own.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    state: Mutex<State>,
}

struct State {
    to_server: Fate,
    to_client: Fate,
    is_refusing: bool,
    /// Both ends of all connections.
    streams: Vec<TcpStream>,
    accepted: usize,
    /// So many of the first connections are stranded.
    stranded: usize,
}

impl Proxy {
    /// To `target`, given as host and port.
    pub fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (to_server, to_client) = (Fate::Pass, Fate::Pass);
        let state = State { to_server, to_client, is_refusing: false, streams: Vec::new(), accepted: 0, stranded: 0 };
        let shared = Arc::new(Shared { target: target.to_string(), state: Mutex::new(state) });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.connect(client);
            }
        });
        Self { port, shared }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What becomes of bytes from now on, on connections that are there and on new ones.
    pub fn set(&self, way: Way, fate: Fate) {
        let mut state = self.shared.state.lock().unwrap();
        match way {
            Way::ToServer => state.to_server = fate,
            Way::ToClient => state.to_client = fate,
        }
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Connections that are there are forgotten by the network: what is sent on them vanishes, for ever, and no end is told. New ones are as always.
    pub fn strand(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.stranded = state.accepted;
    }

    /// Whether new connections are ended at once.
    pub fn refuse(&self, is_refusing: bool) {
        self.shared.state.lock().unwrap().is_refusing = is_refusing;
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.shared.state.lock().unwrap().accepted
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse(true);
        self.cut();
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream) {
        let mut state = self.state.lock().unwrap();
        state.accepted += 1;
        let number = state.accepted;
        if state.is_refusing {
            return;
        }
        let Ok(server) = TcpStream::connect(&self.target) else { return };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            state.streams.push(stream.try_clone().unwrap());
        }
        drop(state);
        self.pump(client.try_clone().unwrap(), server.try_clone().unwrap(), (Way::ToServer, number));
        self.pump(server, client, (Way::ToClient, number));
    }

    fn pump(self: &Arc<Self>, mut from: TcpStream, mut to: TcpStream, way: (Way, usize)) {
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                // Looked at before and after a read: before, so that held bytes stay with their sender.
                while shared.fate(way) == Fate::Hold {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let count = from.read(&mut bytes).unwrap_or(0);
                if count == 0 {
                    break;
                }
                match shared.fate(way) {
                    Fate::Pass => {}
                    Fate::Delay(time) => std::thread::sleep(time),
                    Fate::Swallow => continue,
                    Fate::Hold => {
                        while shared.fate(way) == Fate::Hold {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                    Fate::Cut => break,
                }
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            for stream in [&from, &to] {
                drop(stream.shutdown(Shutdown::Both));
            }
        });
    }

    fn fate(&self, (way, number): (Way, usize)) -> Fate {
        let state = self.state.lock().unwrap();
        if number <= state.stranded {
            return Fate::Swallow;
        }
        match way {
            Way::ToServer => state.to_server,
            Way::ToClient => state.to_client,
        }
    }

    fn cut(&self) {
        for stream in self.state.lock().unwrap().streams.drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}
