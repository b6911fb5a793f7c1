//! A broker that stops, dies, forgets, is in need, or holds what is not ours.

use super::*;

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
