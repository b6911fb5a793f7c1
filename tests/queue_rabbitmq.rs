//! The queue on a real RabbitMQ: the contract, and a broker or a network that fails.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use mehl_soup::queue::contract::{LONG, SHORT, drain, next, next_dead, publish, tickets, until_depth};
use mehl_soup::queue::{
    DeadLetter, Delivery, QueueError, QueueState, RabbitMq, RabbitMqSettings, Subscription, TicketQueue,
};
use mehl_soup::task::Ticket;
use support::proxy::{Fate, Proxy, Way};
use support::servers::{RabbitServer, free_port, new_queue, rabbit_settings, shared_rabbit};

mehl_soup::queue_contract!(new_queue());

/// Within this a broker that came back is published to and consumed from again.
const BACK: Duration = Duration::from_secs(30);

/// Starts a node without keeping the runtime from its work.
async fn node(configuration: &'static str) -> RabbitServer {
    tokio::task::spawn_blocking(move || RabbitServer::start(configuration)).await.unwrap()
}

/// The same for what is done to it.
async fn blocking(mut server: RabbitServer, what: impl FnOnce(&mut RabbitServer) + Send + 'static) -> RabbitServer {
    let done = tokio::task::spawn_blocking(move || {
        what(&mut server);
        server
    });
    done.await.unwrap()
}

async fn shared() -> String {
    tokio::task::spawn_blocking(shared_rabbit).await.unwrap()
}

/// Host and port of an address.
fn place(url: &str) -> String {
    url.trim_end_matches('/').rsplit(['@', '/']).next().unwrap().to_string()
}

/// A queue that reaches the shared broker by way of a proxy.
async fn through_a_proxy(heartbeat: Duration, timeout: Duration) -> (RabbitMq, Proxy) {
    let url = shared().await;
    let proxy = Proxy::start(&place(&url));
    let url = url.replace(&place(&url), &format!("127.0.0.1:{}", proxy.port()));
    let queue = RabbitMq::start(&RabbitMqSettings { heartbeat, timeout, ..rabbit_settings(url) }).unwrap();
    queue.ready(LONG).await.unwrap();
    (queue, proxy)
}

/// Waits until the state of a queue is as it should be.
async fn until(queue: &RabbitMq, what: &str, patience: Duration, is_so: impl Fn(&QueueState) -> bool) -> QueueState {
    let began = Instant::now();
    loop {
        let state = queue.state();
        if is_so(&state) {
            return state;
        }
        assert!(began.elapsed() < patience, "{what}: not within {patience:?}: {state:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Publishes again what was not confirmed, until all is.
async fn publish_until_confirmed(queue: &RabbitMq, tickets: &[Ticket], patience: Duration) {
    let began = Instant::now();
    let mut left = tickets.to_vec();
    while !left.is_empty() {
        let published = queue.publish(&left, Duration::from_secs(2)).await;
        left.retain(|ticket| !published.confirmed.contains(ticket));
        let fault = published.fault;
        assert!(fault.as_ref().is_none_or(QueueError::is_retryable), "{fault:?}");
        assert!(began.elapsed() < patience, "{} tickets not confirmed within {patience:?}: {fault:?}", left.len());
    }
}

/// Takes and acknowledges whatever comes, subscribing again after each fault, until all of `tickets` have come.
async fn consume_until_seen(queue: &RabbitMq, tickets: &[Ticket], patience: Duration) -> Vec<Ticket> {
    let began = Instant::now();
    let mut seen = Vec::new();
    while !tickets.iter().all(|ticket| seen.contains(ticket)) {
        assert!(began.elapsed() < patience, "{} of {} within {patience:?}", seen.len(), tickets.len());
        let Ok(mut subscription) = queue.subscribe(Duration::from_secs(2)).await else { continue };
        while let Ok(Some(delivery)) = subscription.next(SHORT).await {
            let ticket = delivery.ticket().unwrap();
            if delivery.ack().await.is_ok() {
                seen.push(ticket);
            }
        }
    }
    seen
}

/// A channel of somebody else. The connection ends with it.
async fn stranger(url: &str) -> Channel {
    // Without its path: lapin reads `/` as a virtual host without a name.
    let connection = Connection::connect(url.trim_end_matches('/'), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_is_published_to_and_consumed_from_again() {
    let mut server = node("").await;
    let queue = RabbitMq::start(&rabbit_settings(server.url())).unwrap();
    let all = tickets(60);
    publish(&queue, &all[..20]).await;
    let mut subscription = queue.subscribe(LONG).await.unwrap();
    let held = next(&mut subscription).await;

    server = blocking(server, RabbitServer::stop).await;
    let state = until(&queue, "down", LONG, |state| !state.is_connected).await;
    assert!(state.fault.is_some_and(|fault| fault.is_retryable()));
    let ended = subscription.next(LONG).await.map(|delivery| delivery.is_some());
    assert!(ended.as_ref().is_err_and(QueueError::is_retryable), "{ended:?}");
    assert!(held.ack().await.is_err(), "it is delivered again");
    let began = Instant::now();
    let published = queue.publish(&all[20..40], SHORT).await;
    assert!(published.confirmed.is_empty() && published.fault.unwrap().is_retryable());
    assert!(began.elapsed() < SHORT + Duration::from_secs(1), "{:?}", began.elapsed());

    let server = blocking(server, RabbitServer::start_again).await;
    let began = Instant::now();
    publish_until_confirmed(&queue, &all[20..], BACK).await;
    let seen = consume_until_seen(&queue, &all, BACK).await;
    eprintln!("back {:?} after the node, {} deliveries of 60 tickets", began.elapsed(), seen.len());
    assert!(queue.state().is_connected);

    publish(&queue, &all).await;
    let kill = |server: &mut RabbitServer| {
        server.kill();
        server.start_again();
    };
    let server = blocking(server, kill).await;
    let began = Instant::now();
    let seen = consume_until_seen(&queue, &all, BACK).await;
    eprintln!("back {:?} after the killed node, {} deliveries of 60 tickets", began.elapsed(), seen.len());
    publish_until_confirmed(&queue, &all, BACK).await;

    // Another broker at the same place, which knows nothing of us.
    let wipe = |server: &mut RabbitServer| {
        server.kill();
        server.wipe();
        server.start_again();
    };
    let server = blocking(server, wipe).await;
    let began = Instant::now();
    publish_until_confirmed(&queue, &all, BACK).await;
    consume_until_seen(&queue, &all, BACK).await;
    eprintln!("back {:?} after the wiped node", began.elapsed());
    until_depth(&queue, 0, 0).await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_cut_off_says_what_was_not_confirmed() {
    let (queue, proxy) = through_a_proxy(Duration::from_secs(10), Duration::from_secs(10)).await;
    let all = tickets(2000);
    publish(&queue, &all[..1]).await;
    // What it sends arrives; the first confirm that comes back ends the connection.
    proxy.set(Way::ToClient, Fate::Cut);
    let began = Instant::now();
    let published = queue.publish(&all[1..], LONG).await;
    assert!(began.elapsed() < LONG, "the cut is told before the deadline");
    assert!(published.fault.as_ref().is_some_and(QueueError::is_retryable), "{published:?}");
    assert_eq!(published.confirmed, []);
    proxy.set(Way::ToClient, Fate::Pass);
    publish_until_confirmed(&queue, &all[1..], BACK).await;

    let direct =
        RabbitMq::start(&RabbitMqSettings { url: shared().await, ..same_installation(&queue, &proxy) }).unwrap();
    let seen = consume_until_seen(&direct, &all, BACK).await;
    let left = direct.depth(LONG).await.unwrap().ready;
    eprintln!("{} tickets, {} deliveries and {left} left: the rest are duplicates", all.len(), seen.len());
    assert!(seen.len() >= all.len());
}

/// Settings by which another client meets the same queue.
fn same_installation(queue: &RabbitMq, proxy: &Proxy) -> RabbitMqSettings {
    let mut settings = rabbit_settings(format!("amqp://127.0.0.1:{}", proxy.port()));
    settings.installation = queue.installation().to_string();
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_kept_when_bytes_vanish_or_stand_still() {
    for (way, fate) in [(Way::ToServer, Fate::Swallow), (Way::ToClient, Fate::Swallow), (Way::ToServer, Fate::Hold)] {
        let (queue, proxy) = through_a_proxy(Duration::from_secs(1), Duration::from_secs(2)).await;
        let all = tickets(40_000);
        publish(&queue, &all[..10]).await;
        let mut subscription = queue.subscribe(LONG).await.unwrap();
        let held = next(&mut subscription).await;
        let connections = proxy.accepted();
        proxy.set(way, fate);

        let patience = Duration::from_secs(1);
        let began = Instant::now();
        let (published, depth, dead, other) = tokio::join!(
            queue.publish(&all, patience),
            queue.depth(patience),
            queue.take_dead(patience),
            queue.subscribe(patience),
        );
        let took = began.elapsed();
        assert!(took < patience + Duration::from_secs(1), "{way:?} {fate:?}: {took:?}");
        assert_eq!(published.confirmed, [], "{way:?} {fate:?}");
        for fault in [published.fault, depth.err(), dead.err(), other.err()] {
            assert!(fault.as_ref().is_some_and(QueueError::is_retryable), "{way:?} {fate:?}: {fault:?}");
        }
        // Its answer is one-way; with the connection it ends in time.
        let began = Instant::now();
        drop(held.ack().await);
        let ended = loop {
            if let Err(fault) = subscription.next(SHORT).await {
                break fault;
            }
            assert!(began.elapsed() < LONG, "{way:?} {fate:?}: the subscription goes on");
        };
        assert!(ended.is_retryable(), "{way:?} {fate:?}: {ended:?}");
        eprintln!("{way:?} {fate:?}: told after {took:?}, given up after {:?}", began.elapsed());

        proxy.set(way, Fate::Pass);
        publish_until_confirmed(&queue, &all[..10], BACK).await;
        consume_until_seen(&queue, &all[..10], BACK).await;
        assert!(proxy.accepted() > connections, "by new connections");
        queue.close().await;
    }
}

/// In a process of its own (the others of this file have connections too): no thread of a connection outlives it, however it ended.
#[test]
fn connections_that_nobody_answers_leave_no_thread_behind() {
    const INNER: &str = "MEHL_SOUP_TEST_THREADS";
    if let Ok(url) = std::env::var(INNER) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(abandon_connections(&url));
    }
    let (program, name) = (std::env::current_exe().unwrap(), std::thread::current().name().unwrap().to_string());
    let inner =
        Command::new(program).args(["--exact", &name, "--nocapture"]).env(INNER, shared_rabbit()).output().unwrap();
    let told = String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success() && told.contains("no thread left"), "{told}");
}

async fn abandon_connections(url: &str) {
    let proxy = Proxy::start(&place(url));
    let (timeout, url) = (Duration::from_millis(500), url.replace(&place(url), &format!("127.0.0.1:{}", proxy.port())));
    let queue = RabbitMq::start(&RabbitMqSettings { timeout, ..rabbit_settings(url) }).unwrap();
    queue.ready(LONG).await.unwrap();
    assert_eq!(threads_of_lapin(), 2);
    // Each attempt is given up in the midst of its handshake.
    proxy.set(Way::ToClient, Fate::Swallow);
    publish_in_vain(&queue, &tickets(40_000)).await;
    let connections = proxy.accepted();
    let began = Instant::now();
    while proxy.accepted() < connections + 4 {
        assert!(began.elapsed() < LONG);
        publish_in_vain(&queue, &tickets(1000)).await;
    }
    proxy.set(Way::ToClient, Fate::Pass);
    publish_until_confirmed(&queue, &tickets(1), BACK).await;
    queue.ready(LONG).await.unwrap();
    await_threads(2).await;
    drop(queue);
    await_threads(0).await;
    eprintln!("no thread left of {} connections", proxy.accepted());
}

async fn publish_in_vain(queue: &RabbitMq, tickets: &[Ticket]) {
    let published = queue.publish(tickets, Duration::from_millis(600)).await;
    assert!(published.fault.is_some_and(|fault| fault.is_retryable()));
}

async fn await_threads(count: usize) {
    let began = Instant::now();
    while threads_of_lapin() != count {
        assert!(began.elapsed() < LONG, "expected {count} threads, found {}", threads_of_lapin());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn threads_of_lapin() -> usize {
    let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    names.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|n| n.starts_with("lapin"))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_is_only_slow() {
    let (queue, proxy) = through_a_proxy(Duration::from_secs(10), Duration::from_secs(10)).await;
    proxy.set(Way::ToClient, Fate::Delay(Duration::from_millis(30)));
    let all = tickets(20);
    publish(&queue, &all).await;
    assert_eq!(drain(&mut queue.subscribe(LONG).await.unwrap(), 20).await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_in_need_is_seen_and_waited_for() {
    let server = node("").await;
    let queue = RabbitMq::start(&rabbit_settings(server.url())).unwrap();
    let all = tickets(5000);
    publish(&queue, &all[..10]).await;
    let watermark =
        |server: &mut RabbitServer| server.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "10MB"]);
    let server = blocking(server, watermark).await;

    // The broker tells of its need only those who publish.
    let began = Instant::now();
    let fault = loop {
        let asked = Instant::now();
        let published = queue.publish(&all, Duration::from_secs(1)).await;
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        match published.fault {
            Some(fault @ QueueError::Blocked(_)) => break fault,
            // The alarm takes a moment to go round.
            fault => assert!(began.elapsed() < LONG, "{fault:?}"),
        }
    };
    assert!(fault.is_retryable());
    let state = queue.state();
    assert!(state.is_connected && state.is_blocked, "{state:?}");
    // Calls of the same kind leave nothing behind, and take no longer than they may.
    let before = resident_bytes();
    for _ in 0..20 {
        let asked = Instant::now();
        let published = queue.publish(&all, Duration::from_millis(50)).await;
        assert!(matches!(published.fault, Some(QueueError::Blocked(_))) && published.confirmed.is_empty());
        assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    }
    eprintln!("20 calls of 5000 tickets grew memory by {} kB", resident_bytes().saturating_sub(before) / 1024);
    // Other connections are read from: what is there can be consumed.
    let mut subscription = queue.subscribe(LONG).await.unwrap();
    drain(&mut subscription, 10).await;

    let waiting = queue.clone();
    let one = all[..1].to_vec();
    let waits = tokio::spawn(async move { waiting.publish(&one, LONG).await });
    let server = blocking(server, |server| server.rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"])).await;
    let began = Instant::now();
    let published = waits.await.unwrap();
    assert_eq!((published.confirmed.len(), published.fault), (1, None), "a call that waits goes on");
    eprintln!("published {:?} after the alarm was lifted", began.elapsed());
    until(&queue, "unblocked", LONG, |state| !state.is_blocked).await;
    publish(&queue, &all).await;
    drop(server);
}

fn resident_bytes() -> u64 {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_ends_subscriptions_and_is_declared_anew() {
    let url = shared().await;
    let settings = rabbit_settings(url.clone());
    let queue = RabbitMq::start(&settings).unwrap();
    let all = tickets(30);
    publish(&queue, &all).await;
    let mut subscription = queue.subscribe(LONG).await.unwrap();
    drain(&mut subscription, 1).await;
    let name = format!("{}.tickets", settings.installation);
    let channel = stranger(&url).await;
    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    // One may have been sent before.
    let fault = loop {
        match subscription.next(LONG).await {
            Ok(delivery) => drop(delivery.unwrap().ack().await),
            Err(fault) => break fault,
        }
    };
    assert!(matches!(fault, QueueError::Withdrawn(_)), "{fault:?}");

    let returned = queue.publish(&all, LONG).await;
    assert!(matches!(returned.fault, Some(QueueError::Withdrawn(_))), "{:?}", returned.fault);
    assert_eq!(returned.confirmed, [], "messages that nobody takes are acknowledged by the broker, and returned");
    publish(&queue, &all).await;
    assert_eq!(drain(&mut queue.subscribe(LONG).await.unwrap(), 30).await, all);

    // The exchange too: the channel is ended by the broker for it.
    channel.exchange_delete(name.as_str().into(), Default::default()).await.unwrap();
    let refused = queue.publish(&all, LONG).await;
    assert!(matches!(refused.fault, Some(QueueError::Withdrawn(_))), "{:?}", refused.fault);
    publish(&queue, &all).await;
    until_depth(&queue, 30, 0).await;
    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let depth = queue.depth(LONG).await;
    assert!(matches!(depth, Err(QueueError::Withdrawn(_))), "{depth:?}");
    until_depth(&queue, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_declaration_is_named_and_waited_out() {
    let url = shared().await;
    let channel = stranger(&url).await;
    let settings = rabbit_settings(url.clone());
    let name = format!("{}.tickets", settings.installation);
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await.unwrap();
    let queue = RabbitMq::start(&settings).unwrap();
    let began = Instant::now();
    let fault = queue.ready(LONG).await.unwrap_err();
    assert!(matches!(&fault, QueueError::Foreign(text) if text.contains(&name)), "{fault}");
    assert!(!fault.is_retryable() && began.elapsed() < LONG);
    let published = queue.publish(&tickets(1), LONG).await;
    assert!(matches!(&published.fault, Some(QueueError::Foreign(_))), "{published:?}");
    let subscribed = queue.subscribe(LONG).await.err();
    assert!(matches!(&subscribed, Some(QueueError::Foreign(_))), "{subscribed:?}");

    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    until(&queue, "mended", LONG, |state| state.is_connected).await;
    publish(&queue, &tickets(1)).await;

    let settings = rabbit_settings(url);
    let name = format!("{}.dead", settings.installation);
    let (kind, options) = (ExchangeKind::Topic, ExchangeDeclareOptions::default());
    channel.exchange_declare(name.as_str().into(), kind, options, FieldTable::default()).await.unwrap();
    let fault = RabbitMq::start(&settings).unwrap().ready(LONG).await.unwrap_err();
    assert!(matches!(&fault, QueueError::Foreign(text) if text.contains(&name)), "{fault}");
    channel.exchange_delete(name.as_str().into(), Default::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_a_set_up_fault_without_the_password() {
    let url = shared().await;
    let wrong = |user: &str, path: &str| format!("amqp://{user}@{}/{path}", place(&url));
    for (url, what) in [
        (wrong("guest:guessed-wrong", ""), "ACCESS_REFUSED"),
        (wrong("nobody:guessed-wrong", ""), "ACCESS_REFUSED"),
        (wrong("guest:guest", "guessed-wrong"), "NOT_ALLOWED"),
    ] {
        let queue = RabbitMq::start(&rabbit_settings(url.clone())).unwrap();
        let began = Instant::now();
        let fault = queue.ready(LONG).await.unwrap_err();
        assert!(began.elapsed() < LONG, "at once");
        assert!(matches!(&fault, QueueError::Setup(text) if text.contains(what)), "{fault:?}");
        let state = queue.state();
        assert!(!state.is_connected && state.fault.is_some());
        if what == "ACCESS_REFUSED" {
            for shown in [fault.to_string(), format!("{queue:?}"), format!("{state:?}")] {
                assert!(!shown.contains("guessed-wrong"), "{shown}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_and_others_there_are_told_in_time() {
    let queue = RabbitMq::start(&rabbit_settings(format!("amqp://127.0.0.1:{}", free_port()))).unwrap();
    let began = Instant::now();
    let fault = queue.ready(SHORT).await.unwrap_err();
    assert!(matches!(fault, QueueError::Unreachable(_)), "{fault:?}");
    assert!(began.elapsed() < SHORT + Duration::from_secs(1));

    // A server that takes connections and says nothing, and one that speaks another language.
    for (greeting, is_setup) in [("", false), ("HTTP/1.1 400 Bad Request\r\n\r\n", true)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for mut stream in listener.incoming().flatten() {
                drop(std::io::Write::write_all(&mut stream, greeting.as_bytes()));
                kept.push(stream);
            }
        });
        let timeout = Duration::from_millis(500);
        let settings = RabbitMqSettings { timeout, ..rabbit_settings(format!("amqp://127.0.0.1:{port}")) };
        let queue = RabbitMq::start(&settings).unwrap();
        let began = Instant::now();
        let fault = queue.ready(Duration::from_secs(2)).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(3));
        assert_eq!(matches!(fault, QueueError::Setup(_)), is_setup, "{greeting:?}: {fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_message_is_refused_and_becomes_a_dead_letter() {
    let url = shared().await;
    let settings = rabbit_settings(url.clone());
    let queue = RabbitMq::start(&settings).unwrap();
    queue.ready(LONG).await.unwrap();
    let channel = stranger(&url).await;
    let (tickets_name, dead_name) =
        (format!("{}.tickets", settings.installation), format!("{}.dead", settings.installation));
    let put = async |exchange: &str, body: &[u8]| {
        let properties = BasicProperties::default();
        let sent =
            channel.basic_publish(exchange.into(), "ticket".into(), BasicPublishOptions::default(), body, properties);
        assert!(sent.await.unwrap().await.unwrap().is_ack());
    };
    let bodies: [&[u8]; 4] = [b"not a ticket", b"", br#"{"version":9,"task":1}"#, &[0xff; 200_000]];
    for body in bodies {
        put(&tickets_name, body).await;
    }
    let good = tickets(1);
    publish(&queue, &good).await;
    let mut subscription = queue.subscribe(LONG).await.unwrap();
    for _ in bodies {
        let delivery = next(&mut subscription).await;
        delivery.ticket().unwrap_err();
        delivery.refuse().await.unwrap();
    }
    assert_eq!(drain(&mut subscription, 1).await, good, "it blocks nobody");
    for body in bodies {
        let letter = next_dead(&queue).await;
        let dead = letter.dead().clone();
        assert_eq!((dead.body.as_slice(), dead.reason.as_str(), dead.count), (body, "rejected", 1));
        letter.done().await.unwrap();
    }
    put(&dead_name, b"by hand").await;
    let letter = next_dead(&queue).await;
    assert_eq!((letter.dead().body.as_slice(), letter.dead().reason.as_str()), (b"by hand".as_slice(), "unknown"));
    letter.done().await.unwrap();
    assert!(queue.take_dead(LONG).await.unwrap().is_none());
}

/// A certificate for 127.0.0.1 and localhost, signed by an authority of its own.
fn certificates(folder: &std::path::Path) -> [std::path::PathBuf; 3] {
    let [ca, key, certificate] = ["ca.pem", "key.pem", "certificate.pem"].map(|name| folder.join(name));
    let script = "set -e; cd \"$1\"; k='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $k -keyout ca.key -out ca.pem -days 2 -subj /CN=authority
        openssl req $k -keyout key.pem -out request.pem -subj /CN=localhost
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' >extensions
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out certificate.pem";
    let made = Command::new("sh").args(["-c", script, "sh"]).arg(folder).output().expect("a shell");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    [ca, key, certificate]
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_strangers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [ca, key, certificate] = certificates(folder.path());
    let server = tokio::task::spawn_blocking(move || RabbitServer::start_with_tls(&certificate, &key)).await.unwrap();
    let with = |host: &str, ca_file: Option<&std::path::Path>| {
        let settings = rabbit_settings(format!("amqps://guest:guest@{host}:{}/", server.tls_port()));
        RabbitMq::start(&RabbitMqSettings { ca_file: ca_file.map(Into::into), ..settings }).unwrap()
    };
    for host in ["localhost", "127.0.0.1"] {
        let queue = with(host, Some(&ca));
        let all = tickets(100);
        publish(&queue, &all).await;
        assert_eq!(drain(&mut queue.subscribe(LONG).await.unwrap(), 100).await, all);
    }
    let unknown = with("localhost", None).ready(LONG).await.unwrap_err();
    assert!(matches!(&unknown, QueueError::Setup(text) if text.contains("certificate")), "{unknown}");
    let misnamed = with("127.0.0.2", Some(&ca)).ready(LONG).await.unwrap_err();
    // Nobody listens there on machines that have only one address of their own.
    assert!(matches!(&misnamed, QueueError::Setup(_) | QueueError::Unreachable(_)), "{misnamed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tickets_are_confirmed_at_once() {
    let queue = new_queue().await;
    let all = tickets(10_000);
    queue.ready(LONG).await.unwrap();
    let began = Instant::now();
    publish(&queue, &all).await;
    let took = began.elapsed();
    eprintln!("{} tickets confirmed in {took:?}", all.len());
    // One by one, each would wait for a write to disk.
    assert!(took < LONG);
    until_depth(&queue, 10_000, 0).await;
}
