//! Who is connected, how far each is, and whose connection ends when there are too many. Nothing
//! here waits or reads a clock.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Limits;

/// Bytes that a client takes of a waiting answer before its time to take more begins anew.
const TAKEN: usize = 16 << 10;
/// Time without a byte taken from which on a connection can be closed for another one.
const UNREAD: Duration = Duration::from_secs(1);

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing of the next request is there yet.
    Idle,
    /// A request's head is awaited: the first one of the connection, or one that has begun.
    Head,
    /// A request's body is awaited.
    Body,
    /// A whole request is there, and is answered.
    Answer,
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closed {
    /// The head of a request took too long.
    Head,
    /// No request for too long.
    Idle,
    /// An answer was not read for too long.
    Unread,
    /// Another one needed its place.
    Crowded,
}

/// Who a client is: an IPv4 address, or the network of an IPv6 address, as one client has all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client(IpAddr);

impl Client {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(ip) if !ip.is_loopback() => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
            ip => ip,
        })
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    state: Mutex<State>,
    /// Told when it is to be closed.
    pub(super) close: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// When the wait for a whole request began.
    waiting: Instant,
    /// When the client last took enough of an answer that waits for it, and bytes taken since then.
    unread: Option<(Instant, usize)>,
}

impl Connection {
    fn new(client: Client, now: Instant) -> Self {
        let state = State { phase: Phase::Head, since: now, waiting: now, unread: None };
        Self { client, state: Mutex::new(state), close: Notify::new() }
    }

    /// Bytes came from the client.
    pub(super) fn received(&self, now: Instant) {
        let mut state = locked(&self.state);
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, now);
        }
    }

    /// The head of a request is there, and the whole request if `is_whole`.
    pub(super) fn head(&self, is_whole: bool, now: Instant) {
        let mut state = locked(&self.state);
        (state.phase, state.since) = (if is_whole { Phase::Answer } else { Phase::Body }, now);
    }

    /// No more of the body is awaited.
    pub(super) fn body(&self, now: Instant) {
        let mut state = locked(&self.state);
        if state.phase == Phase::Body {
            (state.phase, state.since) = (Phase::Answer, now);
        }
    }

    /// The answer is written, or its last bytes wait for the client.
    pub(super) fn answered(&self, now: Instant) {
        let mut state = locked(&self.state);
        (state.phase, state.since, state.waiting) = (Phase::Idle, now, now);
    }

    /// The client has no room for more of an answer.
    pub(super) fn unread(&self, now: Instant) {
        locked(&self.state).unread.get_or_insert((now, 0));
    }

    /// The client took some bytes of an answer.
    pub(super) fn taken(&self, bytes: usize) {
        let mut state = locked(&self.state);
        if let Some((_, taken)) = &mut state.unread {
            *taken += bytes;
            if *taken >= TAKEN {
                state.unread = None;
            }
        }
    }

    /// Nothing waits for the client.
    pub(super) fn flushed(&self) {
        locked(&self.state).unread = None;
    }

    /// Why it is to be closed by now.
    fn overdue(&self, limits: &Limits, now: Instant) -> Option<Closed> {
        let state = locked(&self.state);
        let over = |since: Instant, limit: Duration| now.duration_since(since) >= limit;
        match (state.unread, state.phase) {
            (Some((since, _)), _) if over(since, limits.unread) => Some(Closed::Unread),
            (None, Phase::Head) if over(state.since, limits.head) => Some(Closed::Head),
            (None, Phase::Idle) if over(state.since, limits.idle) => Some(Closed::Idle),
            // A body has a deadline of its own, after which it is answered; an answer has its handler's.
            _ => None,
        }
    }

    /// How soon it is closed for another one, the smallest first; `None`: not at all. First those
    /// that have not sent a whole request, then those that do not read their answer.
    fn rank(&self, now: Instant) -> Option<(u8, Instant)> {
        let state = locked(&self.state);
        match (state.phase, state.unread) {
            (_, Some((since, _))) => (now.duration_since(since) >= UNREAD).then_some((1, since)),
            (Phase::Answer, None) => None,
            (Phase::Idle | Phase::Head | Phase::Body, None) => Some((0, state.waiting)),
        }
    }
}

/// All connections of a listener.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) limits: Limits,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: HashMap<u64, Arc<Connection>>,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, seats: Mutex::default() }
    }

    /// Takes a new connection. Where there are too many, of all clients or of this one, another is
    /// closed for it; `None` if each of them has sent a whole request and reads its answer. The
    /// second part of the answer is whether one was closed.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> (Option<Seat>, bool) {
        let client = Client::of(address);
        let mut seats = locked(&self.seats);
        let of_client = seats.taken.values().filter(|connection| connection.client == client).count();
        let mut closed = false;
        if of_client >= self.limits.per_client || seats.taken.len() >= self.limits.connections {
            let only = (of_client >= self.limits.per_client).then_some(client);
            closed = seats.close_one(only, now);
            if !closed {
                return (None, false);
            }
        }
        let connection = Arc::new(Connection::new(client, now));
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, connection.clone());
        drop(seats);
        (Some(Seat { table: self.clone(), number, connection }), closed)
    }

    /// Closes the connection that can best be done without. False if none can.
    pub(super) fn close_one(&self, now: Instant) -> bool {
        locked(&self.seats).close_one(None, now)
    }

    /// Closes what is overdue. Answers how many for each reason.
    pub(super) fn close_overdue(&self, now: Instant) -> Vec<(Closed, usize)> {
        let mut counts: Vec<(Closed, usize)> = vec![];
        locked(&self.seats).taken.retain(|_, connection| match connection.overdue(&self.limits, now) {
            Some(reason) => {
                connection.close.notify_one();
                match counts.iter_mut().find(|(of, _)| *of == reason) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((reason, 1)),
                }
                false
            }
            None => true,
        });
        counts
    }
}

impl Seats {
    fn close_one(&mut self, of: Option<Client>, now: Instant) -> bool {
        let those = self.taken.iter().filter(|(_, connection)| of.is_none_or(|client| connection.client == client));
        let ranked = those.filter_map(|(number, connection)| Some((connection.rank(now)?, *number)));
        let Some((_, number)) = ranked.min() else { return false };
        if let Some(connection) = self.taken.remove(&number) {
            connection.close.notify_one();
        }
        true
    }
}

/// A connection's place among the others, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    table: Arc<Table>,
    number: u64,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        locked(&self.table.seats).taken.remove(&self.number);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind the locks here is whole at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        connections: 4,
        per_client: 2,
        head: Duration::from_secs(10),
        body: Duration::from_secs(60),
        idle: Duration::from_secs(75),
        unread: Duration::from_secs(30),
    };

    fn is_open(seat: &Seat) -> bool {
        locked(&seat.table.seats).taken.contains_key(&seat.number)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_phase_has_its_deadline() {
        let (table, begun) = (Arc::new(Table::new(LIMITS)), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let seat = table.admit(ip("10.0.0.1"), begun).0.unwrap();
        let connection = &seat.connection;
        let overdue = |seconds| connection.overdue(&LIMITS, at(seconds));
        // Bytes of a head prolong nothing.
        connection.received(at(9));
        assert_eq!((overdue(9), overdue(10)), (None, Some(Closed::Head)));
        connection.head(false, at(9));
        assert_eq!(overdue(500), None, "a body is answered after its deadline, not cut off");
        connection.body(at(20));
        assert_eq!(overdue(500), None, "an answer has its handler's deadline");
        connection.answered(at(30));
        assert_eq!((overdue(104), overdue(105)), (None, Some(Closed::Idle)));
        connection.received(at(100));
        assert_eq!((overdue(109), overdue(110)), (None, Some(Closed::Head)));
    }

    #[test]
    fn an_answer_has_to_be_taken_at_a_rate() {
        let (table, begun) = (Arc::new(Table::new(LIMITS)), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let seat = table.admit(ip("10.0.0.1"), begun).0.unwrap();
        let connection = &seat.connection;
        let overdue = |seconds| connection.overdue(&LIMITS, at(seconds));
        connection.head(true, begun);
        connection.unread(at(5));
        connection.taken(TAKEN - 1);
        connection.unread(at(20));
        assert_eq!((overdue(34), overdue(35)), (None, Some(Closed::Unread)), "a few bytes prolong nothing");
        connection.taken(1);
        assert_eq!(overdue(500), None);
        connection.unread(at(40));
        connection.answered(at(41));
        assert_eq!(overdue(70), Some(Closed::Unread), "the last bytes of an answer are a part of it");
        connection.flushed();
        assert_eq!(overdue(70), None);
    }

    #[test]
    fn who_has_waited_longest_without_a_request_goes_first() {
        let (table, begun) = (Arc::new(Table::new(LIMITS)), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let admit = |address: &str, seconds| table.admit(ip(address), at(seconds));
        let first = admit("10.0.0.1", 0).0.unwrap();
        let second = admit("10.0.0.2", 1).0.unwrap();
        let third = admit("10.0.0.3", 2).0.unwrap();
        let fourth = admit("10.0.0.4", 3).0.unwrap();
        first.connection.head(true, at(3));
        second.connection.answered(at(4));
        third.connection.head(false, at(3));
        let (fifth, closed) = admit("10.0.0.5", 5);
        let open = [&first, &second, &third, &fourth].map(is_open);
        assert_eq!((fifth.is_some(), closed, open), (true, true, [true, true, false, true]));
        // Those that are answered go only if they do not read.
        for seat in [&second, &fourth, fifth.as_ref().unwrap()] {
            seat.connection.head(true, at(6));
        }
        assert!(admit("10.0.0.6", 7).0.is_none());
        second.connection.unread(at(7));
        assert!(admit("10.0.0.6", 7).0.is_none(), "a moment is no fault");
        assert!(admit("10.0.0.6", 8).0.is_some());
        assert_eq!([&first, &second, &fourth].map(is_open), [true, false, true]);
    }

    #[test]
    fn a_client_with_too_many_loses_its_own() {
        let (table, begun) = (Arc::new(Table::new(LIMITS)), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let other = table.admit(ip("10.0.0.9"), begun).0.unwrap();
        // All of a network of IPv6 is one client, and an IPv4 address is the same in both notations.
        for addresses in [["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1"], ["fd00::1", "fd00::2", "fd00::ff:3"]] {
            let seats = [0, 1, 2].map(|i| table.admit(ip(addresses[i]), at(1 + i as u64)).0.unwrap());
            assert_eq!(seats.each_ref().map(is_open), [false, true, true], "{addresses:?}");
            seats[1].connection.head(true, at(5));
            seats[2].connection.head(true, at(5));
            assert!(table.admit(ip(addresses[0]), at(6)).0.is_none());
        }
        assert!(is_open(&other));
        assert_ne!(Client::of(ip("fd00:0:0:1::1")), Client::of(ip("fd00:0:0:2::1")));
    }
}
