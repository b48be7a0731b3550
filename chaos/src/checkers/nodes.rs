//! What nodes say of themselves: the term of a replica and what it knows to be committed never fall (`term-back`,
//! `committed-back`), and none calls healthy what is not (`health`).

use std::collections::HashMap;

use crate::history::{History, Micros, Replica};

/// How long something may be wrong without being noticed.
const NOTICE_MICROS: Micros = 10_000_000;

pub(super) fn term_goes_back(history: &History) -> Vec<String> {
    // A term outlives the process.
    falls(history, |replica| (replica.node, replica.group, replica.life, 0), |replica| replica.term, "the term")
}

pub(super) fn committed_goes_back(history: &History) -> Vec<String> {
    let key = |replica: &Replica| (replica.node, replica.group, replica.life, replica.boot);
    falls(history, key, |replica| replica.committed, "what is committed")
}

type Key = (u64, u64, u32, u32);

fn falls(history: &History, key: impl Fn(&Replica) -> Key, value: impl Fn(&Replica) -> u64, what: &str) -> Vec<String> {
    let mut known: HashMap<Key, u64> = HashMap::new();
    let mut found = Vec::new();
    for replica in &history.replicas {
        let now = value(replica);
        if let Some(before) = known.insert(key(replica), now)
            && now < before
        {
            let (node, group, at) = (replica.node, replica.group, replica.at);
            found
                .push(format!("{what} of group {group} fell on node {node} from {before} to {now}, {at} µs after the beginning"));
        }
    }
    found
}

pub(super) fn health(history: &History) -> Vec<String> {
    let lies = history.health.iter().filter(|said| said.healthy && said.until.saturating_sub(said.from) > NOTICE_MICROS);
    let lie = |said: &crate::history::Health| {
        let ailment = said.ailment.as_ref()?;
        let seconds = said.until.saturating_sub(said.from) / 1_000_000;
        Some(format!("node {} said for {seconds} s that the cluster is healthy, and {ailment}", said.node))
    };
    lies.filter_map(lie).collect()
}
