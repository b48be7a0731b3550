//! The time that entries are stamped with. Nodes tell each other what their clocks say; what follows from that is decided in
//! `agreement.rs`, and how far a group's time goes with one stamp in `stamp.rs`: both pure.

mod agreement;
mod stamp;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_machines::time::MachineTime;
use flotilla_proto::internal::v1;
use flotilla_raft::disk::error::Class;
use flotilla_raft::troubles::Subject;
use prost::Message;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::surroundings::Clock;
use agreement::{Agreement, Doubt, Heard, Look};
use stamp::{Stamped, next_stamp};

/// How often a node tells the others what its clock says, and looks at what they told.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time catches up with what is proven, or goes back to it, this many times as fast as it passes. After a week in which nothing
/// ran that takes ten minutes.
const CATCH_UP_RATE: i64 = 1000;

/// What a node believes of the time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeClock {
    inner: Arc<Inner>,
}

struct Inner {
    wall: Clock,
    started: Instant,
    known: Mutex<Known>,
}

struct Known {
    agreement: Agreement,
    heard: BTreeMap<u64, Heard>,
}

/// Where a group's time stands on this node, and since when. Shared by who applies and who stamps.
#[derive(Clone, Default)]
pub(crate) struct GroupTime {
    applied: Arc<Mutex<Option<(i64, Instant)>>>,
}

impl GroupTime {
    /// The group's machine has this time now.
    pub(crate) fn applied(&self, now_ms: i64) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        if applied.is_none_or(|(before_ms, _)| before_ms != now_ms) {
            *applied = Some((now_ms, Instant::now()));
        }
    }

    fn stamped(&self) -> Stamped {
        let applied = *self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let (now_ms, ago) = applied.map_or((0, Duration::ZERO), |(now_ms, at)| (now_ms, at.elapsed()));
        Stamped { now_ms, ago_ms: whole_ms(ago) }
    }
}

impl NodeClock {
    pub(crate) fn new(node_id: u64, wall: Clock) -> Self {
        let known = Known { agreement: Agreement::new(node_id), heard: BTreeMap::new() };
        Self { inner: Arc::new(Inner { wall, started: Instant::now(), known: Mutex::new(known) }) }
    }

    /// The stamp that a group whose time stands so would get now.
    pub(crate) fn stamp(&self, time: &GroupTime) -> MachineTime {
        let reading = self.lock().agreement.reading(self.uptime_ms(), self.wall_ms());
        next_stamp(time.stamped(), reading)
    }

    /// The likeliest time, in milliseconds since the Unix epoch.
    pub(crate) fn likely_ms(&self) -> i64 {
        self.lock().agreement.reading(self.uptime_ms(), self.wall_ms()).likely_ms
    }

    /// What this node's own clock says, in milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self) -> i64 {
        self.inner.wall.now_ms()
    }

    /// Whether a node's clock differs from those of most nodes.
    pub(crate) fn is_wrong(&self, node_id: u64) -> bool {
        self.lock().agreement.is_wrong(node_id, self.uptime_ms())
    }

    /// Another node has said what its clock says.
    pub(crate) fn heard(&self, node_id: u64, wall_ms: i64) {
        let heard = Heard { wall_ms, uptime_ms: self.uptime_ms() };
        self.lock().heard.insert(node_id, heard);
    }

    /// Whether there is a time that most clocks, or an hour, have proven.
    fn is_proven(&self) -> bool {
        self.lock().agreement.reading(self.uptime_ms(), self.wall_ms()).proven_ms.is_some()
    }

    fn look(&self, members: &BTreeSet<u64>) {
        let (uptime_ms, wall_ms) = (self.uptime_ms(), self.wall_ms());
        let mut known = self.lock();
        let Known { agreement, heard } = &mut *known;
        heard.retain(|node_id, _| members.contains(node_id));
        agreement.look(Look { uptime_ms, wall_ms, members, heard });
    }

    fn doubt(&self) -> Option<Doubt> {
        self.lock().agreement.doubt(self.uptime_ms(), self.wall_ms())
    }

    fn uptime_ms(&self) -> i64 {
        whole_ms(self.inner.started.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Tells the other nodes what this one's clock says, and looks at what they tell, until the broker stops.
    pub(crate) async fn keep_time(self) {
        let mut links = self.inner.peers.links();
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                _ = ticks.tick() => {}
                changed = links.changed() => if changed.is_err() { return },
            }
            let message = v1::Leading { clock_ms: Some(self.inner.clock.wall_ms()), ..Default::default() };
            let message = bytes::Bytes::from(message.encode_to_vec());
            for node_id in links.borrow_and_update().keys() {
                self.inner.peers.cast(*node_id, message.clone());
            }
            self.look_at_clocks();
            match self.inner.clock.doubt() {
                None => self.troubles().clear(Subject::Clock),
                Some(doubt) => self.troubles().raise(Subject::Clock, Class::Passing, None, doubt.to_string()),
            }
        }
    }

    fn look_at_clocks(&self) {
        let members = self.image().nodes().map(|(node_id, _)| node_id).chain([self.node_id()]).collect();
        self.inner.clock.look(&members);
    }

    /// Returns when most clocks have said what time it is, if there are others, or after a moment: what arrives before that is
    /// dated by this node's clock alone.
    pub(crate) async fn wait_for_time(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        const LOOK_AGAIN: Duration = Duration::from_millis(10);
        let until = Instant::now() + PATIENCE;
        while self.image().nodes().len() > 1 && !self.inner.clock.is_proven() && Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN).await;
            self.look_at_clocks();
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (off, way) =
            (Duration::from_secs(self.ahead_ms.unsigned_abs() / 1000), if self.ahead_ms > 0 { "ahead" } else { "behind" });
        match self.by_most {
            true => write!(
                f,
                "it is {off:?} {way} of those of most nodes, and not used: set it right; this node leads nothing meanwhile"
            ),
            false => write!(
                f,
                "it has leapt and is {off:?} {way} now: set it right, or nothing expires by it until it has kept step for an hour"
            ),
        }
    }
}

fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod cluster_tests;
