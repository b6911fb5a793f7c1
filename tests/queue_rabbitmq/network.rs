//! A network that cuts, delays, swallows, and leads elsewhere.

use super::*;

/// A queue that reaches the shared broker by way of a proxy.
async fn through_a_proxy(heartbeat: Duration, timeout: Duration) -> (RabbitMq, Proxy) {
    let url = shared().await;
    let proxy = Proxy::start(&place(&url));
    let url = url.replace(&place(&url), &format!("127.0.0.1:{}", proxy.port()));
    let queue = RabbitMq::start(&RabbitMqSettings { heartbeat, timeout, ..rabbit_settings(url) }).unwrap();
    queue.ready(LONG).await.unwrap();
    (queue, proxy)
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
        RabbitMq::start(&RabbitMqSettings { url: shared().await.into(), ..same_installation(&queue, &proxy) }).unwrap();
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
