//! Who may be connected. When there are as many clients as allowed, the connection that has been idle for longest gives
//! way to a new one; if all are busy, the new one serves other nodes only, for which some room is kept.
//!
//! A node is recognised by what it asks for: what only nodes ask of each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// A connection that is open only in case that it is another node's has this long to show it.
const PROBATION: Duration = Duration::from_secs(10);
/// Connections that gave way and are not closed yet.
const CLOSING_MAX: usize = 64;
/// Calls and streams of clients, over all connections: each takes some ten KiB, whatever it is about.
const CALLS_MAX: usize = 16_384;

/// The connections of a port.
#[derive(Debug)]
pub struct Slots {
    clients_max: usize,
    peers_max: usize,
    probation: Duration,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    by_id: BTreeMap<u64, Entry>,
    clients: usize,
    /// Those on probation, too.
    peers: usize,
    closing: usize,
    /// Calls of clients that are not finished.
    calls: usize,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    /// Calls that are not finished.
    calls: usize,
    idle_since: Instant,
    closed: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Client,
    /// Another node's.
    Peer,
    /// Over the clients' number: serves other nodes.
    Probation,
    /// Gave way.
    Closing,
}

impl Open {
    fn insert(&mut self, kind: Kind, closed: CancellationToken) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.by_id.insert(id, Entry { kind, calls: 0, idle_since: Instant::now(), closed });
        *self.count(kind) += 1;
        id
    }

    fn remove(&mut self, id: u64) {
        if let Some(entry) = self.by_id.remove(&id) {
            *self.count(entry.kind) -= 1;
        }
    }

    fn turn(&mut self, id: u64, kind: Kind) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            let before = std::mem::replace(&mut entry.kind, kind);
            *self.count(before) -= 1;
            *self.count(kind) += 1;
        }
    }

    fn count(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Client => &mut self.clients,
            Kind::Peer | Kind::Probation => &mut self.peers,
            Kind::Closing => &mut self.closing,
        }
    }

    fn longest_idle(&self) -> Option<(u64, CancellationToken)> {
        let idle = self.by_id.iter().filter(|(_, entry)| entry.kind == Kind::Client && entry.calls == 0);
        idle.min_by_key(|(_, entry)| entry.idle_since).map(|(id, entry)| (*id, entry.closed.clone()))
    }
}

/// The place of one connection; dropping it makes room.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    id: u64,
    closed: CancellationToken,
}

/// A call of a connection; it is finished when this is dropped.
#[derive(Debug)]
pub struct OpenCall {
    slot: Arc<Slot>,
    by_peer: bool,
}

/// Why a call is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The connection serves other nodes only.
    #[error("this node has as many connections of clients as it may (setting connections_max), and none of them is idle")]
    Connections,
    /// All connections together have too many.
    #[error("this node has as many calls open as it may ({CALLS_MAX})")]
    Calls,
}

impl Slots {
    /// Room for as many connections of clients, and of other nodes besides.
    pub fn new(clients_max: usize, peers_max: usize) -> Self {
        Self { clients_max, peers_max, probation: PROBATION, open: Mutex::default() }
    }

    /// A place for one more connection, if there is one.
    pub fn admit(self: &Arc<Self>) -> Option<Slot> {
        let mut open = self.lock();
        let kind = self.place(&mut open)?;
        let closed = CancellationToken::new();
        let id = open.insert(kind, closed.clone());
        Some(Slot { slots: self.clone(), id, closed })
    }

    fn place(&self, open: &mut Open) -> Option<Kind> {
        if self.has_room_for_client(open) {
            return Some(Kind::Client);
        }
        (open.peers < self.peers_max).then_some(Kind::Probation)
    }

    /// Whether there is room for a client, or is made.
    fn has_room_for_client(&self, open: &mut Open) -> bool {
        if open.clients < self.clients_max {
            return true;
        }
        if open.closing < CLOSING_MAX
            && let Some((idle, closed)) = open.longest_idle()
        {
            open.turn(idle, Kind::Closing);
            closed.cancel();
            return true;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Returns when the connection must be closed.
    pub async fn gave_way(&self) {
        if tokio::time::timeout(self.slots.probation, self.closed.cancelled()).await.is_ok()
            || self.kind() == Some(Kind::Probation)
        {
            return;
        }
        self.closed.cancelled().await;
    }

    /// A call comes in.
    ///
    /// # Errors
    /// If it is a client's, and there is no room for it.
    pub fn call(self: &Arc<Self>, by_peer: bool) -> Result<OpenCall, Full> {
        let mut open = self.slots.lock();
        let kind = open.by_id.get(&self.id).map_or(Kind::Closing, |entry| entry.kind);
        let has_room = open.peers < self.slots.peers_max;
        match kind {
            Kind::Probation if !by_peer && self.slots.has_room_for_client(&mut open) => open.turn(self.id, Kind::Client),
            Kind::Probation if !by_peer => return Err(Full::Connections),
            Kind::Probation => open.turn(self.id, Kind::Peer),
            Kind::Client if by_peer && has_room => open.turn(self.id, Kind::Peer),
            Kind::Client | Kind::Peer | Kind::Closing => {}
        }
        if !by_peer && open.calls >= CALLS_MAX {
            return Err(Full::Calls);
        }
        open.calls += usize::from(!by_peer);
        if let Some(entry) = open.by_id.get_mut(&self.id) {
            entry.calls += 1;
        }
        Ok(OpenCall { slot: self.clone(), by_peer })
    }

    /// Closes the connection: others want what it holds, and its client does not read. Another node's stays: it serves many.
    pub fn close(&self) {
        if self.kind() == Some(Kind::Client) {
            self.closed.cancel();
        }
    }

    fn kind(&self) -> Option<Kind> {
        self.slots.lock().by_id.get(&self.id).map(|entry| entry.kind)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().remove(self.id);
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut open = self.slot.slots.lock();
        open.calls -= usize::from(!self.by_peer);
        if let Some(entry) = open.by_id.get_mut(&self.slot.id) {
            entry.calls -= 1;
            entry.idle_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn slots(clients_max: usize, peers_max: usize) -> Arc<Slots> {
        Arc::new(Slots { probation: Duration::from_millis(10), ..Slots::new(clients_max, peers_max) })
    }

    fn admit(slots: &Arc<Slots>) -> Arc<Slot> {
        Arc::new(slots.admit().unwrap())
    }

    #[tokio::test]
    async fn the_one_that_has_been_idle_for_longest_gives_way() {
        let slots = slots(3, 0);
        let (first, second, third) = (admit(&slots), admit(&slots), admit(&slots));
        let busy = first.call(false).unwrap();
        drop(second.call(false));
        let fourth = admit(&slots);
        third.gave_way().await;
        assert!(!first.closed.is_cancelled() && !second.closed.is_cancelled() && !fourth.closed.is_cancelled());
        drop((busy, third));
        let _fifth = admit(&slots);
        assert!(second.closed.is_cancelled(), "the first one was busy after it");
    }

    #[tokio::test]
    async fn over_the_clients_number_only_other_nodes_are_served() {
        let slots = slots(1, 2);
        let client = admit(&slots);
        let busy = client.call(false).unwrap();
        let (peer, mut other) = (admit(&slots), admit(&slots));
        assert!(slots.admit().is_none(), "no room is left");
        assert!(peer.call(false).is_err(), "a client has no room");
        let _link = peer.call(true).unwrap();
        assert!(peer.call(false).is_ok(), "a node may ask for anything");
        other.gave_way().await;
        drop(other);
        other = admit(&slots);
        drop((busy, client));
        assert!(other.call(false).is_ok(), "there is room by now");
        assert_eq!(tokio::time::timeout(5 * slots.probation, peer.gave_way()).await.ok(), None);
    }

    #[tokio::test]
    async fn a_node_takes_no_clients_room() {
        let slots = slots(1, 1);
        let first = admit(&slots);
        let _link = first.call(true).unwrap();
        let second = admit(&slots);
        assert!(second.call(false).is_ok() && !first.closed.is_cancelled());
        drop(first);
        let open = slots.lock();
        assert_eq!((open.clients, open.peers), (1, 1), "the call still holds the slot");
    }

    #[test]
    fn calls_have_a_number_whatever_connection_they_come_over() {
        let slots = slots(2, 0);
        let (one, other) = (admit(&slots), admit(&slots));
        let mut calls: Vec<_> = (0..CALLS_MAX).map(|_| one.call(false).unwrap()).collect();
        assert_eq!(other.call(false).unwrap_err(), Full::Calls);
        assert!(other.call(true).is_ok(), "a node is served");
        calls.pop();
        assert!(other.call(false).is_ok());
    }

    #[test]
    fn what_closes_makes_room_but_not_before_it_is_closed() {
        let slots = slots(1, 0);
        let open: Vec<_> = (0..=CLOSING_MAX).map(|_| admit(&slots)).collect();
        assert!(slots.admit().is_none(), "too many are closing");
        drop(open);
        assert!(slots.admit().is_some());
    }
}
