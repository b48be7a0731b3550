//! What one replica has seen of all replicas of its group, itself among them, and what follows from that. Pure.
//!
//! Of a replica alone it is known that it is not as it had said. Where replicas contradict each other, those are right who are a
//! majority of the voters: there is at most one such camp, whoever looks. Without one, nobody is.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Acknowledged, Report};
use super::track::{Compared, Track};
use crate::standing::Membership;
use crate::types::ReplicaId;

/// Points that are remembered of each replica.
const POINTS_KEPT: usize = 64;
/// Terms of which it is remembered who led.
const TERMS_KEPT: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    replicas: BTreeMap<ReplicaId, Told>,
    /// By term and leader: who says that this one leads.
    leaders: BTreeMap<u64, BTreeMap<ReplicaId, BTreeSet<ReplicaId>>>,
    /// Whether anything does not fit. Nothing is looked at more closely before that.
    doubt: bool,
}

/// What a replica has told so far.
#[derive(Debug, Default)]
struct Told {
    /// Over which link.
    link: u64,
    life: u64,
    committed: Option<u64>,
    /// The latest.
    acknowledged: Option<Acknowledged>,
    /// The highest.
    applied: Option<u64>,
    track: Track,
    accused: Vec<ReplicaId>,
    /// How it is not as it had said: the first such thing.
    broken: Option<String>,
}

/// What follows for the replica that has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything fits.
    Sound,
    /// Others are wrong, in words. The group goes on without them.
    Others(String),
    /// This replica is wrong, in words, and the others are a majority without it.
    Condemned(String),
    /// Nobody is right by majority; in words.
    Undecided(String),
}

/// Something about which replicas contradict each other.
struct Quarrel {
    about: String,
    camps: Vec<BTreeSet<ReplicaId>>,
}

impl Seen {
    /// Takes in what a replica of the group says. Over one link it comes in order; what comes over a link with a lower number
    /// than another did is older, and passed over. `true`: the replica was not heard in this life before.
    pub(crate) fn take(&mut self, report: &Report, link: u64) -> bool {
        let known = self.replicas.get(&report.replica);
        if known.is_some_and(|told| told.link > link) {
            return false;
        }
        let begins = known.is_none_or(|told| told.life != report.life);
        self.note_leader(report);
        let told = self.replicas.entry(report.replica).or_default();
        if told.broken.is_none() {
            told.broken = told.broken_by(report);
        }
        told.take(report, link);
        self.doubt |= told.broken.is_some() || !told.accused.is_empty();
        let others = self.replicas.iter().filter(|(id, _)| **id != report.replica);
        self.doubt |= others.map(|(_, other)| report.track.against(&other.track)).any(differs);
        begins
    }

    /// Whether anything does not fit.
    pub(crate) fn has_doubt(&self) -> bool {
        self.doubt
    }

    /// Forgets who is no replica of the group any more.
    pub(crate) fn keep(&mut self, members: &Membership) {
        self.replicas.retain(|id, _| members.holds(*id));
        for believers in self.leaders.values_mut().flat_map(BTreeMap::values_mut) {
            believers.retain(|id| members.holds(*id));
        }
    }

    /// Replicas that are not as they had said.
    pub(crate) fn accused(&self) -> Vec<ReplicaId> {
        let broken = self.replicas.iter().filter(|(_, told)| told.broken.is_some());
        broken.map(|(id, _)| *id).collect()
    }

    /// What follows for `me`.
    pub(crate) fn verdict(&mut self, me: ReplicaId, members: &Membership) -> Verdict {
        if !self.doubt {
            return Verdict::Sound;
        }
        self.keep(members);
        let mut wrong = self.broken(members);
        let mut open = Vec::new();
        for quarrel in self.quarrels(members) {
            match quarrel.outvoted(members) {
                Some(outvoted) => {
                    outvoted.into_iter().for_each(|id| _ = wrong.entry(id).or_insert_with(|| quarrel.about.clone()));
                }
                None => open.push(quarrel),
            }
        }
        if let Some(quarrel) = open.iter().find(|quarrel| quarrel.is_open_without(&wrong)) {
            return Verdict::Undecided(quarrel.about.clone());
        }
        let all = wrong.values().map(String::as_str).collect::<BTreeSet<_>>();
        let all = all.into_iter().collect::<Vec<_>>().join("; ");
        if !members.can_spare(&wrong.keys().copied().collect()) {
            return Verdict::Undecided(all);
        }
        match wrong.remove(&me) {
            Some(about) => Verdict::Condemned(about),
            None if wrong.is_empty() => {
                self.doubt = false;
                Verdict::Sound
            }
            None => Verdict::Others(all),
        }
    }

    fn note_leader(&mut self, report: &Report) {
        let Some(leader) = report.leader() else { return };
        let camps = self.leaders.entry(report.vote.term).or_default();
        camps.entry(leader).or_default().insert(report.replica);
        self.doubt |= camps.len() > 1;
        while self.leaders.len() > TERMS_KEPT {
            self.leaders.pop_first();
        }
    }

    /// Those that are not as they had said, by what was seen here or by others.
    fn broken(&self, members: &Membership) -> BTreeMap<ReplicaId, String> {
        let mut broken = BTreeMap::new();
        for (witness, told) in &self.replicas {
            if let Some(how) = &told.broken {
                broken.insert(*witness, format!("{}: {how}", named(*witness, members)));
            }
            for accused in told.accused.iter().filter(|accused| members.holds(**accused)) {
                let (accused_named, witness) = (named(*accused, members), named(*witness, members));
                let how = || format!("{accused_named} is not as it had said, as {witness} has seen");
                broken.entry(*accused).or_insert_with(how);
            }
        }
        broken
    }

    fn quarrels(&self, members: &Membership) -> Vec<Quarrel> {
        let of_term = |(term, camps): (&u64, &BTreeMap<ReplicaId, BTreeSet<ReplicaId>>)| {
            let camps: BTreeMap<_, _> = camps.iter().filter(|(_, believers)| !believers.is_empty()).collect();
            let leaders = camps.keys().map(|leader| named(**leader, members)).collect::<Vec<_>>();
            let about = format!("term {term} has several leaders: {}", leaders.join(" and "));
            Quarrel { about, camps: camps.into_values().cloned().collect() }
        };
        let mut at: BTreeMap<(u64, u64), BTreeMap<u32, BTreeSet<ReplicaId>>> = BTreeMap::new();
        for (id, told) in &self.replicas {
            for point in &told.track.points {
                at.entry((told.track.from, point.index)).or_default().entry(point.hash).or_default().insert(*id);
            }
        }
        let of_entry = |((_, index), camps): ((u64, u64), BTreeMap<u32, BTreeSet<ReplicaId>>)| {
            let mut camps: Vec<_> = camps.into_values().collect();
            camps.sort();
            let said: Vec<String> = camps.iter().map(|camp| all_named(camp, members)).collect();
            Quarrel { about: format!("what was applied through entry {index} differs: {}", said.join(" against ")), camps }
        };
        let quarrels = self.leaders.iter().map(of_term).chain(at.into_iter().map(of_entry));
        quarrels.filter(|quarrel| quarrel.camps.len() > 1).collect()
    }
}

impl Told {
    /// How a report shows that the replica is not as it had said. What is acknowledged to a leader stays as long as that one
    /// leads; a later one may replace it, but never what was applied.
    fn broken_by(&self, report: &Report) -> Option<String> {
        let last = report.last;
        let has = || last.map_or_else(|| "nothing".to_owned(), |last| format!("entries up to {last}"));
        if let Some(Acknowledged { term, index }) = self.acknowledged {
            if report.vote.term < term {
                return Some(format!("it was in term {term} and is in term {}", report.vote.term));
            }
            if report.vote.term == term && last < Some(index) {
                return Some(format!("it had acknowledged entry {index} in term {term} and has {}", has()));
            }
        }
        if last < self.applied {
            return Some(format!("it had applied entry {} and has {}", self.applied.unwrap_or_default(), has()));
        }
        // What is committed is not noted durably at once: in another life it may be less.
        if report.life == self.life && report.committed < self.committed {
            let [before, now] = [self.committed, report.committed].map(Option::unwrap_or_default);
            return Some(format!("it knew that entry {before} is committed and knows only of {now}"));
        }
        None
    }

    fn take(&mut self, report: &Report, link: u64) {
        if self.life != report.life {
            self.track = Track::default();
        }
        self.track.extend(&report.track, POINTS_KEPT);
        (self.link, self.life) = (link, report.life);
        self.committed = report.committed;
        self.acknowledged = self.acknowledged.max(report.acknowledged);
        self.applied = self.applied.max(report.applied);
        self.accused.clone_from(&report.accused);
    }
}

impl Quarrel {
    /// Those who are not in the camp that is a majority of the voters; `None` if no camp is.
    fn outvoted(&self, members: &Membership) -> Option<BTreeSet<ReplicaId>> {
        let votes = |camp: &BTreeSet<ReplicaId>| camp.iter().filter(|id| members.voters.contains_key(id)).count();
        let majority = self.camps.iter().position(|camp| votes(camp) > members.voters.len() / 2)?;
        let others = self.camps.iter().enumerate().filter(|(number, _)| *number != majority);
        Some(others.flat_map(|(_, camp)| camp).copied().collect())
    }

    /// Whether there are several camps, even if those who are wrong for another reason do not count.
    fn is_open_without(&self, wrong: &BTreeMap<ReplicaId, String>) -> bool {
        let right = |camp: &&BTreeSet<ReplicaId>| camp.iter().any(|id| !wrong.contains_key(id));
        self.camps.iter().filter(right).count() > 1
    }
}

fn differs(compared: Compared) -> bool {
    matches!(compared, Compared::Differs(_))
}

fn named(replica: ReplicaId, members: &Membership) -> String {
    match members.node_of(replica) {
        Some(node) => format!("replica {replica} on node {node}"),
        None => format!("replica {replica}"),
    }
}

fn all_named(replicas: &BTreeSet<ReplicaId>, members: &Membership) -> String {
    replicas.iter().map(|replica| named(*replica, members)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
