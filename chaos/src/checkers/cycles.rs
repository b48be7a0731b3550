//! Cycles (Adya's G0, and G1c as far as it can be without transactions that write and read): what was sent together takes
//! effect at one place in the order of all. A batch comes before another one if one of its records lies before one of the
//! other's in some partition, or if it was acknowledged before the other was sent.

use std::collections::HashMap;

use crate::history::{History, Id, Outcome};

/// A batch of a producer.
type Batch = (u32, u32);

pub(super) fn check(history: &History) -> Vec<String> {
    let batch = |id: Id| history.produce(id).map(|produce| (id.producer, produce.batch));
    // Which batch comes right behind which.
    let mut next: HashMap<Batch, Vec<Batch>> = HashMap::new();
    let mut edge = |from: Option<Batch>, to: Option<Batch>| {
        if let (Some(from), Some(to)) = (from, to)
            && from != to
        {
            next.entry(from).or_default().push(to);
        }
    };
    for records in history.final_reads.first().into_iter().flat_map(|read| read.partitions.values()) {
        let mut before = None;
        for seen in records {
            let Some(id) = seen.id else { continue };
            let this = batch(id);
            edge(before, this);
            before = this;
        }
    }
    let mut last: HashMap<u32, Batch> = HashMap::new();
    for produce in history.produces().filter(|produce| matches!(produce.outcome, Outcome::Ok(_))) {
        let this = (produce.id.producer, produce.batch);
        edge(last.insert(produce.id.producer, this), Some(this));
    }
    knots(&next).into_iter().map(|(one, other)| say(one, other)).collect()
}

fn say(one: Batch, other: Batch) -> String {
    let name = |(producer, batch): Batch| format!("batch {batch} of producer {producer}");
    format!("{} comes before {}, and that before it", name(one), name(other))
}

/// Two batches of each set in which each comes before each: what cannot be ordered. By taking away, again and again, whatever
/// nothing comes before (Kahn 1962): in the rest, everybody has somebody before him.
fn knots(next: &HashMap<Batch, Vec<Batch>>) -> Vec<(Batch, Batch)> {
    let mut before: HashMap<Batch, usize> = next.keys().map(|batch| (*batch, 0)).collect();
    for to in next.values().flatten() {
        *before.entry(*to).or_default() += 1;
    }
    let mut free: Vec<Batch> = before.iter().filter(|(_, count)| **count == 0).map(|(batch, _)| *batch).collect();
    while let Some(batch) = free.pop() {
        before.remove(&batch);
        for to in next.get(&batch).into_iter().flatten() {
            if let Some(count) = before.get_mut(to) {
                *count -= 1;
                if *count == 0 {
                    free.push(*to);
                }
            }
        }
    }
    let rest = |batch: &Batch| before.contains_key(batch);
    let mut knots: Vec<(Batch, Batch)> = next
        .iter()
        .filter(|(from, _)| rest(from))
        .flat_map(|(from, all)| all.iter().filter(|to| rest(to)).map(move |to| (*from, *to)))
        .filter(|(from, to)| comes_before(next, *to, *from, &rest))
        .collect();
    knots.sort_unstable();
    knots.dedup();
    knots
}

/// Whether one leads to the other within what is left.
fn comes_before(next: &HashMap<Batch, Vec<Batch>>, from: Batch, to: Batch, rest: &impl Fn(&Batch) -> bool) -> bool {
    let (mut seen, mut open) = (std::collections::HashSet::from([from]), vec![from]);
    while let Some(batch) = open.pop() {
        if batch == to {
            return true;
        }
        open.extend(next.get(&batch).into_iter().flatten().filter(|to| rest(to) && seen.insert(**to)));
    }
    false
}
