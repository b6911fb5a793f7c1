//! The queue on a real RabbitMQ: the contract, and a broker or a network that fails.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

#[path = "queue_rabbitmq/broker.rs"]
mod broker;
#[path = "queue_rabbitmq/network.rs"]
mod network;
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use mehl_soup::operator_file::OperatorFile;
use mehl_soup::queue::contract::{LONG, SHORT, drain, next, next_dead, publish, tickets, until_depth};
use mehl_soup::queue::{
    DeadLetter, Delivery, QueueError, QueueState, RabbitMq, RabbitMqSettings, Subscription, TicketQueue,
};
use mehl_soup::task::Ticket;
use support::proxy::{Fate, Proxy, Way};
use support::servers::{RabbitServer, certificates, free_port, new_queue, rabbit_settings, shared_rabbit};

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

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_strangers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [ca, key, certificate] = certificates(folder.path());
    let server = tokio::task::spawn_blocking(move || RabbitServer::start_with_tls(&certificate, &key)).await.unwrap();
    let with = |host: &str, ca_file: Option<&std::path::Path>| {
        let settings = rabbit_settings(format!("amqps://guest:guest@{host}:{}/", server.tls_port()));
        RabbitMq::start(&RabbitMqSettings { ca_file: ca_file.map(OperatorFile::new), ..settings }).unwrap()
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
