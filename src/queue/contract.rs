//! What every queue must do. Each function takes a new, empty queue.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use super::{
    DELIVERY_LIMIT, DeadLetter, Delivery, Depth, Published, QueueError, QueueState, Subscription, TicketQueue,
};
use crate::task::Ticket;

/// For what must come.
pub const LONG: Duration = Duration::from_secs(20);
/// For what must not come: long enough for it to come if it were on its way.
pub const SHORT: Duration = Duration::from_millis(300);

/// Tickets `s/t0`, `s/t1`, ...
pub fn tickets(count: usize) -> Vec<Ticket> {
    (0..count).map(|i| Ticket::new(format!("s/t{i}").parse().unwrap(), 1)).collect()
}

/// Publishes tickets that must all be confirmed.
///
/// RabbitMQ refuses what reaches a quorum queue before its leader does, as on a busy machine just after the declaration; like the scheduler, this then
/// publishes what was not confirmed again.
pub async fn publish<Q: TicketQueue>(queue: &Q, tickets: &[Ticket]) {
    let began = Instant::now();
    let mut left = tickets.to_vec();
    loop {
        let Published { confirmed, fault } = queue.publish(&left, LONG).await;
        left.retain(|ticket| !confirmed.contains(ticket));
        match fault {
            None => break,
            Some(QueueError::Unreachable(_)) if began.elapsed() < LONG => {
                tokio::time::sleep(Duration::from_millis(5)).await
            }
            Some(fault) => panic!("{fault:?}, {} tickets not confirmed", left.len()),
        }
    }
    assert_eq!(left, [], "not confirmed, and no fault told");
}

/// The next ticket, which must come.
pub async fn next<S: Subscription>(subscription: &mut S) -> S::Delivery {
    subscription.next(LONG).await.unwrap().expect("a ticket")
}

/// Takes and acknowledges so many tickets.
pub async fn drain<S: Subscription>(subscription: &mut S, count: usize) -> Vec<Ticket> {
    let mut drained = Vec::new();
    for _ in 0..count {
        let delivery = next(subscription).await;
        drained.push(delivery.ticket().unwrap());
        delivery.ack().await.unwrap();
    }
    drained
}

/// Waits until the queue holds so much.
pub async fn until_depth<Q: TicketQueue>(queue: &Q, ready: u64, consumers: u64) {
    let began = Instant::now();
    loop {
        let depth = queue.depth(LONG).await.unwrap();
        if depth == (Depth { ready, consumers }) {
            return;
        }
        assert!(began.elapsed() < LONG, "expected {ready} tickets and {consumers} consumers, found {depth:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The next dead letter, which must come.
pub async fn next_dead<Q: TicketQueue>(queue: &Q) -> Q::DeadLetter {
    let began = Instant::now();
    loop {
        if let Some(dead) = queue.take_dead(LONG).await.unwrap() {
            return dead;
        }
        assert!(began.elapsed() < LONG, "no dead letter");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn tickets_are_delivered_in_order_and_once<Q: TicketQueue>(queue: Q) {
    assert_eq!(queue.ready(LONG).await, Ok(()));
    assert_eq!(queue.state(), QueueState { is_connected: true, is_blocked: false, fault: None });
    let all = tickets(50);
    publish(&queue, &all[..30]).await;
    publish(&queue, &all[30..]).await;
    publish(&queue, &[]).await;
    until_depth(&queue, 50, 0).await;
    let mut subscription = queue.subscribe(LONG).await.unwrap();
    assert_eq!(drain(&mut subscription, 50).await, all);
    assert!(subscription.next(SHORT).await.unwrap().is_none(), "an acknowledged ticket is gone");
    until_depth(&queue, 0, 1).await;
}

pub async fn a_subscriber_has_one_ticket_at_a_time<Q: TicketQueue>(queue: Q) {
    let all = tickets(3);
    publish(&queue, &all).await;
    let mut one = queue.subscribe(LONG).await.unwrap();
    let first = next(&mut one).await;
    assert!(one.next(SHORT).await.unwrap().is_none(), "the first is not settled");
    let mut two = queue.subscribe(LONG).await.unwrap();
    let second = next(&mut two).await;
    assert_eq!((first.ticket().unwrap(), second.ticket().unwrap()), (all[0].clone(), all[1].clone()));
    until_depth(&queue, 1, 2).await;
    first.ack().await.unwrap();
    assert_eq!(drain(&mut one, 1).await, all[2..]);
    second.ack().await.unwrap();
}

pub async fn a_wait_ends_when_a_ticket_comes_and_when_patience_ends<Q: TicketQueue>(queue: Q) {
    let mut subscription = queue.subscribe(LONG).await.unwrap();
    assert!(subscription.next(Duration::ZERO).await.unwrap().is_none());
    let began = Instant::now();
    assert!(subscription.next(SHORT).await.unwrap().is_none());
    assert!(began.elapsed() >= SHORT);
    let all = tickets(1);
    let (delivery, ()) = tokio::join!(next(&mut subscription), publish(&queue, &all));
    assert_eq!(delivery.ticket().unwrap(), all[0]);
    delivery.ack().await.unwrap();
    assert!(began.elapsed() < LONG);
}

pub async fn a_ticket_that_is_put_back_is_delivered_again<Q: TicketQueue>(queue: Q) {
    let all = tickets(1);
    publish(&queue, &all).await;
    let mut subscription = queue.subscribe(LONG).await.unwrap();
    next(&mut subscription).await.put_back().await.unwrap();
    assert_eq!(drain(&mut subscription, 1).await, all);
    assert!(queue.take_dead(LONG).await.unwrap().is_none());
}

pub async fn a_subscription_that_is_dropped_gives_its_ticket_back<Q: TicketQueue>(queue: Q) {
    let all = tickets(1);
    publish(&queue, &all).await;
    let mut subscription = queue.subscribe(LONG).await.unwrap();
    let delivery = next(&mut subscription).await;
    drop((delivery, subscription));
    until_depth(&queue, 1, 0).await;
    assert_eq!(drain(&mut queue.subscribe(LONG).await.unwrap(), 1).await, all);
}

pub async fn a_cancelled_subscription_takes_no_more_and_can_settle_what_it_has<Q: TicketQueue>(queue: Q) {
    let all = tickets(3);
    publish(&queue, &all).await;
    let mut one = queue.subscribe(LONG).await.unwrap();
    let held = next(&mut one).await;
    one.cancel().await.unwrap();
    one.cancel().await.unwrap();
    // It may still be counted as a consumer for as long as it holds a ticket.
    assert_eq!(queue.depth(LONG).await.unwrap().ready, 2);
    let after = one.next(LONG).await.map(|delivery| delivery.is_some());
    assert!(matches!(after, Err(QueueError::Withdrawn(_))), "{after:?}");
    held.ack().await.unwrap();
    until_depth(&queue, 2, 0).await;

    // One that was never asked for a ticket has had one sent to it: that one is put back.
    let mut two = queue.subscribe(LONG).await.unwrap();
    two.cancel().await.unwrap();
    until_depth(&queue, 2, 0).await;
    let mut three = queue.subscribe(LONG).await.unwrap();
    assert_eq!(drain(&mut three, 2).await, all[1..]);
    assert!(three.next(SHORT).await.unwrap().is_none(), "what was held was acknowledged");
}

pub async fn a_refused_ticket_is_a_dead_letter_until_it_is_dealt_with<Q: TicketQueue>(queue: Q) {
    let all = tickets(2);
    publish(&queue, &all).await;
    assert!(queue.take_dead(LONG).await.unwrap().is_none());
    let mut subscription = queue.subscribe(LONG).await.unwrap();
    for _ in 0..2 {
        next(&mut subscription).await.refuse().await.unwrap();
    }
    assert!(subscription.next(SHORT).await.unwrap().is_none(), "a refused ticket is not delivered again");
    let first = next_dead(&queue).await;
    let dead = first.dead().clone();
    assert_eq!((dead.body.as_slice(), dead.reason.as_str(), dead.count), (&*all[0].to_bytes(), "rejected", 1));
    first.put_back().await.unwrap();
    // Both are there again, in any order.
    let mut both = [next_dead(&queue).await, next_dead(&queue).await];
    both.sort_by(|a, b| a.dead().body.cmp(&b.dead().body));
    assert_eq!((both[0].dead(), &*both[1].dead().body), (&dead, &*all[1].to_bytes()));
    for letter in both {
        letter.done().await.unwrap();
    }
    assert!(queue.take_dead(LONG).await.unwrap().is_none());
    until_depth(&queue, 0, 1).await;
}

pub async fn a_ticket_that_nobody_settles_becomes_a_dead_letter<Q: TicketQueue>(queue: Q) {
    let all = tickets(2);
    publish(&queue, &all[..1]).await;
    for _ in 0..=DELIVERY_LIMIT {
        let mut subscription = queue.subscribe(LONG).await.unwrap();
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.ticket().unwrap(), all[0]);
        drop((delivery, subscription));
    }
    let dead = next_dead(&queue).await;
    assert_eq!((dead.dead().body.clone(), dead.dead().reason.as_str()), (all[0].to_bytes(), "delivery_limit"));
    dead.done().await.unwrap();
    publish(&queue, &all[1..]).await;
    assert_eq!(drain(&mut queue.subscribe(LONG).await.unwrap(), 1).await, all[1..], "it blocks nobody");
}

pub async fn duplicates_are_delivered_as_often_as_published<Q: TicketQueue>(queue: Q) {
    let twice = [tickets(1), tickets(1)].concat();
    publish(&queue, &twice).await;
    assert_eq!(drain(&mut queue.subscribe(LONG).await.unwrap(), 2).await, twice);
}

pub async fn a_closed_queue_says_so<Q: TicketQueue>(queue: Q) {
    let all = tickets(1);
    publish(&queue, &all).await;
    let mut subscription = queue.subscribe(LONG).await.unwrap();
    drain(&mut subscription, 1).await;
    queue.close().await;
    queue.close().await;
    let fault = Some(QueueError::Closed);
    assert_eq!(queue.state(), QueueState { is_connected: false, is_blocked: false, fault: fault.clone() });
    assert_eq!(queue.ready(LONG).await, Err(QueueError::Closed));
    assert_eq!(queue.publish(&all, LONG).await, Published { confirmed: vec![], fault });
    assert_eq!(queue.subscribe(LONG).await.err(), Some(QueueError::Closed));
    assert_eq!(queue.depth(LONG).await, Err(QueueError::Closed));
    assert_eq!(queue.take_dead(LONG).await.err(), Some(QueueError::Closed));
    assert!(subscription.next(LONG).await.is_err());
}

/// Tests of a backend, given an expression for a future that makes a new, empty queue.
#[macro_export]
macro_rules! queue_contract {
    ($make:expr) => {
        $crate::queue_contract!(@each $make;
            tickets_are_delivered_in_order_and_once,
            a_subscriber_has_one_ticket_at_a_time,
            a_wait_ends_when_a_ticket_comes_and_when_patience_ends,
            a_ticket_that_is_put_back_is_delivered_again,
            a_subscription_that_is_dropped_gives_its_ticket_back,
            a_cancelled_subscription_takes_no_more_and_can_settle_what_it_has,
            a_refused_ticket_is_a_dead_letter_until_it_is_dealt_with,
            a_ticket_that_nobody_settles_becomes_a_dead_letter,
            duplicates_are_delivered_as_often_as_published,
            a_closed_queue_says_so,
        );
    };
    (@each $make:expr; $($promise:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $promise() {
            $crate::queue::contract::$promise($make.await).await;
        })*
    };
}

#[cfg(test)]
mod tests {
    crate::queue_contract!(async { crate::queue::InProcess::default() });
}
