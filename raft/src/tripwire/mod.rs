//! The tripwire: the replicas of a group tell each other what must never be otherwise than the others have it, and see whether
//! it is. Each says once a second, where it changed, in which term it is and who leads that, what it knows to be committed, what
//! it has acknowledged, and points of a hash chain over what it has applied. Nothing of that is asked for before a
//! record is acknowledged: it finds defects and lying disks, after the fact and soon.
//!
//! Who is wrong while the others are a majority is given up, and copies from them as a damaged replica does. Where nobody is
//! right by majority the group takes and gives nothing, until it is known who is: unavailable instead of wrong. That is
//! not noted anywhere: it follows from what the replicas tell, and is over when that fits again.
//!
//! - `chain.rs` the hash chain · `track.rs` what of it can be compared · `report.rs` what a replica tells · `seen.rs` what follows: all pure

pub(crate) mod chain;
mod report;
mod seen;
mod track;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use flotilla_proto::internal::v1 as pb;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::disk::error::Class;
use crate::group::Group;
use crate::network::{LinkState, Peers};
use crate::registry::Groups;
use crate::troubles::{Subject, Troubles};
use crate::types::{GroupId, NodeId, ReplicaId};
pub use chain::{CHECKPOINT_ENTRIES, ChainEnd};
use report::Acknowledged;
pub(crate) use report::Report;
pub use report::{track_from_wire, track_to_wire};
use seen::{Seen, Verdict};
pub use track::{Compared, Point, Track};

/// How often a group's replicas tell what they have to tell.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// Groups take turns within that time, so that nothing else waits for all of them.
const TURNS: u32 = 10;
/// Reports in one frame.
pub(crate) const REPORTS_MAX: usize = 64;

/// The tripwire of one group, on one node.
pub(crate) struct Tripwire {
    group: GroupId,
    troubles: Troubles,
    seen: Mutex<Seen>,
    telling: Mutex<Telling>,
    /// Why the group takes and gives nothing.
    halted: ArcSwapOption<String>,
}

#[derive(Default)]
struct Telling {
    /// What is told, and how often that has changed.
    report: Option<Arc<Report>>,
    changes: u64,
    /// What each node knows of it.
    known: BTreeMap<NodeId, Known>,
}

struct Known {
    /// Over which link it was told: what was sent over another one may be lost.
    link: u64,
    changes: u64,
    life: u64,
    /// The last point.
    upto: Option<u64>,
}

impl Tripwire {
    pub(crate) fn new(group: GroupId, troubles: Troubles) -> Self {
        Self { group, troubles, seen: Mutex::default(), telling: Mutex::default(), halted: ArcSwapOption::empty() }
    }

    /// Why the group takes and gives nothing, if it does not.
    pub(crate) fn halted(&self) -> Option<Arc<String>> {
        self.halted.load_full()
    }

    /// The group takes and gives nothing while there is a reason; and says what is wrong with its replicas.
    fn set(&self, halted: Option<&str>, alarm: Option<String>) {
        self.halted.store(halted.map(|reason| Arc::new(reason.to_owned())));
        match alarm {
            Some(alarm) => self.troubles.raise(Subject::Replicas(self.group), Class::Damage, None, alarm),
            None => self.troubles.clear(Subject::Replicas(self.group)),
        }
    }
}

impl Drop for Tripwire {
    fn drop(&mut self) {
        self.troubles.clear(Subject::Replicas(self.group));
    }
}

/// Tells the other nodes what the replicas here have to tell, and draws the conclusions from what was heard, until `stop`.
pub(crate) async fn run(groups: Arc<Groups>, peers: Peers, stop: CancellationToken) {
    let links = peers.links();
    let mut ticks = tokio::time::interval(TELL_INTERVAL / TURNS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in (0..u64::from(TURNS)).cycle() {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let links = links.borrow().clone();
        let mut told: BTreeMap<NodeId, Vec<pb::Report>> = BTreeMap::new();
        for group in groups.all_running().into_iter().filter(|group| group.id().0 % u64::from(TURNS) == turn) {
            for (node, report) in group.tell(&links) {
                told.entry(node).or_default().push(report);
            }
            group.judge().await;
        }
        told.into_iter().for_each(|(node, reports)| peers.report(node, reports));
    }
}

impl Group {
    /// Why the group takes and gives nothing although it runs: its replicas contradict each other.
    #[must_use]
    pub fn halted(&self) -> Option<Arc<String>> {
        self.tripwire().halted()
    }

    /// Why this replica is given up, if it is, and if a start from the disk would find that, too.
    #[must_use]
    pub fn condemned(&self) -> Option<String> {
        self.damage().filter(|_| self.log().is_condemned())
    }

    /// What of this replica can be compared with the others, and the last entry that it has applied.
    #[must_use]
    pub fn track(&self) -> (Track, Option<u64>) {
        let log = self.log();
        let chain = log.chain();
        (chain.track(), chain.applied())
    }

    /// Hears what a replica on another node tells. Who is not known here as a replica of the group is not heard.
    pub(crate) fn hear(&self, (from, link): (NodeId, LinkState), report: &Report) {
        let lives_on = self.standing().borrow().membership.node_of(report.replica);
        if lives_on != Some(from) {
            return;
        }
        let Tripwire { seen, telling, .. } = self.tripwire();
        let begins = lock(seen).take(report, link.number);
        if begins {
            // What it was told before, it may not have been there to hear.
            lock(telling).known.remove(&from);
        }
    }

    /// What is to be told to the nodes of the group's other replicas, over the links that are up.
    fn tell(&self, links: &BTreeMap<NodeId, LinkState>) -> Vec<(NodeId, pb::Report)> {
        let standing = self.standing();
        let standing = standing.borrow();
        let (me, members) = (self.replica(), &standing.membership);
        if !members.holds(me) {
            return Vec::new();
        }
        let Tripwire { seen, telling, .. } = self.tripwire();
        let report = self.report(lock(seen).accused());
        let mut telling = lock(telling);
        let report = telling.says(report);
        // No link leads here.
        lock(seen).take(&report, 0);
        lock(seen).keep(members);
        let nodes = members.voters.iter().chain(&members.learners).map(|(_, node)| *node).filter(|node| *node != self.node());
        nodes.filter_map(|node| Some((node, telling.news(node, links.get(&node)?, &report)?))).collect()
    }

    /// What this replica has to say now. The order in which it is read matters: a report may say too little of what was
    /// acknowledged and applied, but what is missing in the log later is missing.
    fn report(&self, accused: Vec<ReplicaId>) -> Report {
        let flushed = self.raft().watch_log_progress().get();
        let acknowledged = flushed
            .filter(|flushed| flushed.vote.committed)
            .and_then(|flushed| Some(Acknowledged { term: flushed.vote.leader_id.term, index: flushed.last_log_id?.index }));
        let (life, applied, track) = {
            let chain = self.log().chain();
            (chain.life(), chain.applied(), chain.track())
        };
        let (vote, committed, last) = self.log().stand();
        Report {
            group: self.id(),
            replica: self.replica(),
            life,
            vote: vote.unwrap_or_default(),
            committed: committed.map(|committed| committed.index),
            last: last.map(|last| last.index),
            acknowledged,
            applied,
            track,
            accused,
        }
    }

    /// Draws the conclusions from what was seen.
    async fn judge(&self) {
        let tripwire = self.tripwire();
        if !lock(&tripwire.seen).has_doubt() {
            return;
        }
        let members = self.standing().borrow().membership.clone();
        if !members.holds(self.replica()) {
            return;
        }
        let verdict = lock(&tripwire.seen).verdict(self.replica(), &members);
        match verdict {
            Verdict::Sound => tripwire.set(None, None),
            Verdict::Others(about) => {
                tripwire.set(None, Some(format!("{about}; who is outvoted is given up, and copies from the others")));
            }
            Verdict::Undecided(about) => {
                let alarm = format!(
                    "{about}; its replicas contradict each other and no majority of them is right, so that nothing of it is read or \
                     written. Start those of its nodes that are down: if most of the replicas agree, the others copy from them. If \
                     not, keep copies of the data directories before anything else; \"flotilla cluster verify\" shows which differ"
                );
                tripwire.set(Some(&alarm), Some(alarm.clone()));
            }
            Verdict::Condemned(about) => {
                tripwire.set(Some(&about), None);
                self.log().condemn(format!("{about}; most replicas are right without this one, which copies from them")).await;
            }
        }
    }
}

impl Telling {
    /// What is to be told from now on: `report`, if it says anything new.
    fn says(&mut self, report: Report) -> Arc<Report> {
        if let Some(before) = self.report.as_ref().filter(|before| ***before == report) {
            return before.clone();
        }
        self.changes += 1;
        self.report.insert(Arc::new(report)).clone()
    }

    /// What a node does not know yet.
    fn news(&mut self, node: NodeId, link: &LinkState, report: &Report) -> Option<pb::Report> {
        let known = self.known.get(&node).filter(|known| known.link == link.number);
        if known.is_some_and(|known| known.changes == self.changes) {
            return None;
        }
        let of_this_life = known.filter(|known| known.life == report.life);
        let news = report.to_wire(of_this_life.and_then(|known| known.upto));
        let upto = report.track.points.last().map(|point| point.index);
        self.known.insert(node, Known { link: link.number, changes: self.changes, life: report.life, upto });
        Some(news)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::types::Vote;

    fn report(life: u64, points: &[u64]) -> Report {
        let points: Vec<Point> = points.iter().map(|index| Point { index: *index, hash: 1 }).collect();
        Report {
            group: GroupId(5),
            replica: ReplicaId(11),
            life,
            vote: Vote::default(),
            committed: None,
            last: None,
            acknowledged: None,
            applied: points.last().map(|point| point.index),
            track: Track { from: 0, points },
            accused: Vec::new(),
        }
    }

    #[test]
    fn a_node_is_told_once_what_is_new() {
        let mut telling = Telling::default();
        let mut told = |node, link, of: Report| {
            let said = telling.says(of);
            let news = telling.news(node, &LinkState { number: link, boot: 1 }, &said);
            news.map(|news| news.track.unwrap().indexes)
        };
        assert_eq!(told(2, 1, report(1, &[9, 20])), Some(vec![9, 20]));
        assert_eq!(told(2, 1, report(1, &[9, 20])), None);
        assert_eq!(told(2, 1, report(1, &[9, 20, 30])), Some(vec![30]));
        assert_eq!(told(3, 1, report(1, &[9, 20, 30])), Some(vec![9, 20, 30]), "another node");
        assert_eq!(told(2, 2, report(1, &[9, 20, 30])), Some(vec![9, 20, 30]), "what was sent over the link before may be lost");
        assert_eq!(told(2, 2, report(2, &[20, 30])), Some(vec![20, 30]), "another life");
    }
}
