//! Connections that say nothing, or next to nothing, and clients that do not read: none lasts, and
//! no number of them keeps a probe from its answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{get, post};
use mehl_soup::api::ApiSettings;
use mehl_soup::queue::InProcess;
use mehl_soup::serving::{Limits, serve_within};
use mehl_soup::store::Memory;
use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;

use crate::support::service::{Service, TOKEN, request};

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// A request of which the last bytes are missing.
const HALF: &[u8] = b"GET /v1/sweeps HTTP/1.1\r\nhost: localhost\r\nx-a: ";

/// A request that is answered late.
const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nhost: here\r\n\r\n";

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(600);

/// Limits of which none is reached.
const WIDE: Limits = Limits { connections: 1000, per_client: 1000, head: LONG, body: LONG, idle: LONG, unread: LONG };

/// A server of this test's own. It ends with the value.
struct Server {
    address: SocketAddr,
    /// Requests for what is answered late.
    slow: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let slow = Arc::new(AtomicUsize::new(0));
        let waiting = slow.clone();
        let wait = move || {
            waiting.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(LONG)
        };
        let large = get(|| async { vec![b'x'; 64 << 20] });
        let hear = post(|body: axum::body::Bytes| async move { body.len().to_string() });
        let router = Router::new().route("/healthz", get(|| async { "ok" })).route("/large", large);
        let router = router.route("/hear", hear).route("/slow", get(wait));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async { drop(stopped.await) };
        let serving = tokio::spawn(serve_within(limits, listener, router, until, Duration::from_secs(1)));
        Self { address, slow, stop: Some(stop), serving: Some(serving) }
    }

    /// A connection over which this was sent.
    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    /// The same from another address of this machine.
    fn send_from_another(&self, bytes: &[u8]) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        // A server that refuses it may have closed it by now.
        drop(stream.write_all(bytes));
        stream
    }

    async fn health(&self) -> u16 {
        let url = format!("http://{}/healthz", self.address);
        tokio::task::spawn_blocking(move || request("GET", &url, &[], b"").status).await.unwrap()
    }
}

/// Everything that comes until the connection is closed, and whether that was within the patience.
fn rest(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let (mut all, mut piece) = (Vec::new(), [0; 1 << 16]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (all, true),
            Ok(read) => all.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (all, true),
            Err(_) => return (all, false),
        }
    }
}

/// Whether a connection is closed by now.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0; 1024]);
    stream.set_nonblocking(false).unwrap();
    !matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// How many connections are open.
fn open(streams: &mut [TcpStream]) -> usize {
    streams.iter_mut().map(is_closed).filter(|closed| !closed).count()
}

/// Waits until `done`, looking again and again.
fn until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a byte now and then until the connection is closed.
fn trickle(stream: &mut TcpStream, began: Instant) {
    let mut copy = stream.try_clone().unwrap();
    while !is_closed(&mut copy) {
        if stream.write_all(b"b").is_err() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "it is open after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_a_deadline_whether_bytes_come_or_not() {
    let server = Server::start(Limits { head: SHORT, ..WIDE }).await;
    let began = Instant::now();
    for sent in [&b""[..], HALF] {
        let (answer, closed) = rest(&mut server.send(sent));
        assert!(closed && answer.is_empty() && began.elapsed() >= SHORT, "{sent:?}");
    }
    // The time of the next request is the idle time, until its first byte is there.
    let mut stream = server.send(b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n");
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    std::thread::sleep(SHORT * 2);
    assert!(stream.write_all(HALF).is_ok() && rest(&mut stream).1 && began.elapsed() >= SHORT * 4);
    trickle(&mut server.send(HALF), Instant::now());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_further_request_ends() {
    let server = Server::start(Limits { idle: SHORT, ..WIDE }).await;
    let mut stream = server.send(b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n");
    let (answer, closed) = rest(&mut stream);
    assert!(closed && answer.ends_with(b"ok"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_off() {
    let server = Server::start(Limits { unread: SHORT, ..WIDE }).await;
    let mut stream = server.send(b"GET /large HTTP/1.1\r\nhost: here\r\n\r\n");
    // What it sends afterwards is not read either: a client may send many requests and read nothing.
    let began = Instant::now();
    while stream.write_all(b"GET /large HTTP/1.1\r\nhost: here\r\n\r\n").is_ok() {
        assert!(began.elapsed() < PATIENCE, "it is open after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    // One that reads gets all of it.
    let mut stream = server.send(b"GET /large HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
    let (answer, closed) = rest(&mut stream);
    assert!(closed && answer.len() > 64 << 20, "{}", answer.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_connections_open_loses_the_oldest_and_keeps_nobody_out() {
    let server = Server::start(Limits { connections: 20, per_client: 20, ..WIDE }).await;
    let mut held: Vec<TcpStream> = (0..50).map(|_| server.send(HALF)).collect();
    for _ in 0..20 {
        assert_eq!(server.health().await, 200);
    }
    until(|| open(&mut held) <= 20);
    assert!(is_closed(&mut held[0]) && !is_closed(&mut held[49]), "the oldest first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_too_many_connections_keeps_no_other_out() {
    let server = Server::start(Limits { connections: 20, per_client: 5, ..WIDE }).await;
    // Whole requests that take long: none of them is closed for another.
    let mut held: Vec<TcpStream> = (0..5).map(|_| server.send_from_another(SLOW)).collect();
    until(|| server.slow.load(Ordering::SeqCst) == 5);
    let mut refused: Vec<TcpStream> = (0..30).map(|_| server.send_from_another(SLOW)).collect();
    assert_eq!(server.health().await, 200);
    until(|| open(&mut refused) == 0);
    assert_eq!((open(&mut held), server.slow.load(Ordering::SeqCst)), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_make_room_for_a_probe() {
    let server = Server::start(Limits { connections: 4, per_client: 4, ..WIDE }).await;
    let held: Vec<TcpStream> = (0..4).map(|_| server.send(b"GET /large HTTP/1.1\r\nhost: here\r\n\r\n")).collect();
    let began = Instant::now();
    let url = format!("http://{}/healthz", server.address);
    let ask =
        move || ureq::get(&url).config().timeout_global(Some(PATIENCE)).build().call().map(|a| a.status().as_u16());
    while !matches!(tokio::task::spawn_blocking(ask.clone()).await.unwrap(), Ok(200)) {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_has_an_end() {
    let server = Server::start(Limits { body: SHORT, ..WIDE }).await;
    for sent in [&b""[..], b"some"] {
        let head = b"POST /hear HTTP/1.1\r\nhost: here\r\ncontent-length: 1000\r\n\r\n";
        let mut stream = server.send(&[head, sent].concat());
        let began = Instant::now();
        trickle(&mut stream, began);
        assert!(began.elapsed() >= SHORT);
    }
    let whole = b"POST /hear HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody";
    let (answer, _) = rest(&mut server.send(whole));
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"4"), "{}", String::from_utf8_lossy(&answer));
}

/// A service whose bodies have a short time.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_told_so() {
    let limits = Limits { body: SHORT, ..WIDE };
    let (memory, queue) = (Memory::default(), InProcess::default());
    let service = Service::start_within(limits, memory, queue, Some(TOKEN), ApiSettings::default()).await;
    let mut stream = TcpStream::connect(service.server.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /v1/sweeps HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n";
    write!(stream, "{head}authorization: Bearer {TOKEN}\r\ncontent-length: 1000\r\n\r\n{{").unwrap();
    let (answer, closed) = rest(&mut stream);
    let answer = String::from_utf8(answer).unwrap();
    assert!(closed && answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["error"]["code"], "request_timeout");
    // Without a token nobody waits for the body.
    let mut stream = TcpStream::connect(service.server.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let began = Instant::now();
    write!(stream, "{head}content-length: 1000\r\n\r\n{{").unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert!(began.elapsed() < PATIENCE && &status == b"HTTP/1.1 401", "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_does_not_delay_the_end() {
    let mut server = Server::start(WIDE).await;
    let mut idle = server.send(b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n");
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).unwrap();
    let mut silent = server.send(b"");
    let mut half = server.send(HALF);
    assert_eq!(server.health().await, 200);
    let began = Instant::now();
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(PATIENCE, server.serving.take().unwrap()).await.unwrap().unwrap().unwrap();
    // Half a request is waited for as long as any other.
    assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < Duration::from_secs(10));
    assert!([&mut idle, &mut silent, &mut half].map(|stream| rest(stream).1).into_iter().all(|closed| closed));
    assert!(TcpStream::connect(server.address).is_err());
}
