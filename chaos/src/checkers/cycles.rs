//! Cycles (Adya's G0, and G1c as far as it can be without transactions that write and read): what was sent together takes
//! effect at one place in the order of all. A batch comes before another one if one of its records lies before one of the
//! other's in some partition, or if it was acknowledged before the other was sent.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::history::{History, Id, Micros, Outcome};

pub(super) fn check(history: &History) -> Vec<String> {
    let order = Order::of(history);
    order.cycles().into_iter().map(|(one, other)| order.say(one, other)).collect()
}

/// What comes before what: a graph whose nodes are batches and, behind them, moments. There is a moment for each batch, at which
/// it is sent. It comes before the batch and before the next moment; a batch that was acknowledged comes before the next moment
/// then. So what is a pair of batches for each two of which the one was over when the other began takes one edge each.
struct Order {
    batches: Vec<Batch>,
    /// The batches in the order in which they were sent: a moment each.
    sent: Vec<u32>,
    /// From a batch to the one behind it in a partition; sorted.
    next: Vec<(u32, u32)>,
}

/// What was sent together.
struct Batch {
    producer: u32,
    batch: u32,
    sent: Micros,
    /// If it is known to have been written: the moment behind it, if there is any.
    over: Option<usize>,
}

/// How far the search has come with a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Not,
    /// What comes behind it is being looked at.
    Open,
    Done,
}

impl Order {
    fn of(history: &History) -> Self {
        let (mut batches, mut acknowledged): (Vec<Batch>, Vec<Option<Micros>>) = (Vec::new(), Vec::new());
        // By producer: where its records begin in `of_record`, which has the batch of each.
        let (mut begins, mut of_record): (BTreeMap<u32, usize>, Vec<u32>) = (BTreeMap::new(), Vec::new());
        for produce in history.produces() {
            let producer = produce.id.producer;
            begins.entry(producer).or_insert(of_record.len());
            if batches.last().is_none_or(|last| (last.producer, last.batch) != (producer, produce.batch)) {
                batches.push(Batch { producer, batch: produce.batch, sent: produce.invoked, over: None });
                acknowledged.push(None);
            }
            let at = produce.completed.filter(|_| matches!(produce.outcome, Outcome::Ok(_)));
            if let Some(last) = acknowledged.last_mut() {
                *last = (*last).max(at);
            }
            of_record.push(index(batches.len() - 1));
        }
        let mut sent: Vec<u32> = (0..index(batches.len())).collect();
        let sent_at = |batch: &u32| batches.get(*batch as usize).map_or(0, |batch| batch.sent);
        sent.sort_by_key(sent_at);
        let over = |at: Micros| Some(sent.partition_point(|batch| sent_at(batch) <= at)).filter(|moment| *moment < sent.len());
        let overs: Vec<Option<usize>> = acknowledged.into_iter().map(|at| over(at?)).collect();
        batches.iter_mut().zip(overs).for_each(|(batch, over)| batch.over = over);
        let batch_of = |id: Id| of_record.get(begins.get(&id.producer)? + usize::try_from(id.sequence).ok()?).copied();
        let mut next = Vec::new();
        for records in history.final_reads.first().into_iter().flat_map(|read| read.partitions.values()) {
            let mut in_turn: Vec<u32> = records.iter().filter_map(|seen| batch_of(seen.id?)).collect();
            in_turn.dedup();
            next.extend(in_turn.windows(2).filter_map(|pair| pair.first().copied().zip(pair.last().copied())));
        }
        next.sort_unstable();
        next.dedup();
        Self { batches, sent, next }
    }

    fn moments(&self) -> Range<usize> {
        self.batches.len()..self.batches.len() + self.sent.len()
    }

    /// The `nth` of those that a node comes right before.
    fn behind(&self, node: usize, nth: usize) -> Option<usize> {
        let moments = self.moments();
        if let Some(batch) = self.batches.get(node) {
            let first = self.next.partition_point(|(from, _)| (*from as usize) < node);
            let next = self.next.get(first..).unwrap_or_default().iter().take_while(|(from, _)| *from as usize == node);
            let over = batch.over.map(|moment| moments.start + moment);
            return next.map(|(_, to)| *to as usize).chain(over).nth(nth);
        }
        let batch = self.sent.get(node - moments.start).map(|batch| *batch as usize);
        let later = Some(node + 1).filter(|later| moments.contains(later));
        batch.into_iter().chain(later).nth(nth)
    }

    /// Goes as deep as it can, again and again: whoever comes before one that it came from closes a cycle. The first and the last
    /// batch of each that is found so.
    fn cycles(&self) -> Vec<(usize, usize)> {
        let mut seen = vec![Seen::Not; self.moments().end];
        let mut cycles = Vec::new();
        for start in 0..self.batches.len() {
            if seen.get(start) != Some(&Seen::Not) {
                continue;
            }
            let mut path: Vec<(usize, usize)> = vec![(start, 0)];
            while let Some((node, nth)) = path.last_mut() {
                let (from, to) = (*node, self.behind(*node, *nth));
                *nth += 1;
                let fresh = seen.get(from) == Some(&Seen::Not);
                if let Some(state) = seen.get_mut(from)
                    && fresh
                {
                    *state = Seen::Open;
                }
                match to.and_then(|to| Some((to, *seen.get(to)?))) {
                    Some((to, Seen::Not)) => path.push((to, 0)),
                    Some((to, Seen::Open)) => cycles.extend(self.ends(&path, to)),
                    Some((_, Seen::Done)) => {}
                    None => {
                        if let Some(state) = seen.get_mut(from) {
                            *state = Seen::Done;
                        }
                        path.pop();
                    }
                }
            }
        }
        cycles
    }

    /// The first and the last batch on the path from `to` on.
    fn ends(&self, path: &[(usize, usize)], to: usize) -> Option<(usize, usize)> {
        let begins = path.iter().rposition(|(node, _)| *node == to)?;
        let mut batches = path.get(begins..)?.iter().map(|(node, _)| *node).filter(|node| *node < self.batches.len());
        let first = batches.next()?;
        Some((first, batches.next_back()?))
    }

    fn say(&self, one: usize, other: usize) -> String {
        let name = |node: usize| {
            let batch = self.batches.get(node);
            batch.map_or_else(String::new, |Batch { producer, batch, .. }| format!("batch {batch} of producer {producer}"))
        };
        format!("{} comes before {}, and that before it", name(one), name(other))
    }
}

/// A history has fewer batches than this counts.
fn index(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{self, FinalRead};

    /// Producers' records of (producer, partition, invoked, completed), and the ids of each partition in order.
    fn history(sent: &[(u32, u32, Micros, Micros)], partitions: &[&[(u32, u64)]]) -> History {
        let mut history = History::default();
        for (producer, partition, invoked, completed) in sent {
            let id = history.invoke(*producer, 0, 1, *partition, *invoked);
            history.resolve(id, Outcome::Ok(0), *completed);
        }
        let seen = |(offset, (producer, sequence)): (u64, &(u32, u64))| {
            let id = Some(Id { producer: *producer, sequence: *sequence });
            history::Seen { offset, id }
        };
        let read = |ids: &&[(u32, u64)]| (0..).zip(ids.iter()).map(seen).collect();
        let partitions = (0..).zip(partitions.iter().map(read)).collect();
        history.final_reads.push(FinalRead { source: "node 1".to_owned(), partitions });
        history
    }

    /// Two producers, two partitions, each its first record to another one: each partition has the other's first one last.
    const CROSSED: &[&[(u32, u64)]] = &[&[(1, 1), (0, 0)], &[(0, 1), (1, 0)]];

    #[test]
    fn what_was_on_its_way_together_has_no_order() {
        let together = [(0, 0, 0, 10), (0, 1, 1, 9), (1, 1, 0, 10), (1, 0, 1, 9)];
        assert_eq!(check(&history(&together, CROSSED)), [""; 0]);
    }

    #[test]
    fn what_was_acknowledged_comes_before_what_is_sent_then() {
        let in_turn = [(0, 0, 0, 10), (0, 1, 11, 19), (1, 1, 0, 10), (1, 0, 11, 19)];
        assert!(!check(&history(&in_turn, CROSSED)).is_empty());
        let not_yet = [(0, 0, 0, 10), (0, 1, 10, 19), (1, 1, 0, 10), (1, 0, 10, 19)];
        assert_eq!(check(&history(&not_yet, CROSSED)), [""; 0], "in the same moment is not before");
    }
}
