//! What was sent and what became of it; and whether what is read agrees with that.
//!
//! Each value names its producer and sequence number, and its other bytes follow from these, so a record that is read
//! shows by itself whether it is whole. An unknown outcome is no failure: such a record may be there or not, but once at most.

use std::collections::BTreeMap;

use flotilla_client::{Client, Delivered, Delivery, Error, Record};

use crate::random::Random;
use crate::read::Partitions;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It must be read, there.
    Acked(Delivered),
    /// It may be read, once.
    Unknown,
    /// It must not be read.
    Failed,
}

/// Who sent a record, and its place in what that producer sent.
pub type Id = (u32, u64);

/// Every record sent, and what became of it.
#[derive(Debug, Clone, Default)]
pub struct History {
    sent: BTreeMap<Id, Outcome>,
    acked: usize,
}

impl History {
    /// Notes that a record is about to be sent: what becomes of it is unknown.
    ///
    /// # Panics
    /// If it was sent before: then the test is wrong.
    pub fn sent(&mut self, id: Id) {
        assert_eq!(self.sent.insert(id, Outcome::Unknown), None, "{id:?} was sent twice");
    }

    /// Notes what became of a record that was sent.
    pub fn resolve(&mut self, id: Id, outcome: Outcome) {
        self.acked += usize::from(matches!(outcome, Outcome::Acked(_)));
        self.sent.insert(id, outcome);
    }

    /// Records acknowledged.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.acked
    }

    /// Records sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    /// Whether nothing was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Everything in `read` that the promises do not allow. `read` is each partition from its first record on.
    #[must_use]
    pub fn violations(&self, read: &Partitions) -> Vec<String> {
        let mut found = self.lost(read);
        found.extend(offsets(read));
        let mut seen: BTreeMap<Id, (u32, u64)> = BTreeMap::new();
        for (&partition, records) in read {
            let mut last: BTreeMap<u32, u64> = BTreeMap::new();
            for record in records {
                let place = (partition, record.offset);
                let Some(id) = id(record.value.as_deref().unwrap_or_default()) else {
                    found.push(format!("phantom or changed: {place:?} holds bytes that nobody sent"));
                    continue;
                };
                match self.sent.get(&id) {
                    None => found.push(format!("phantom: {place:?} holds {id:?}, which was never sent")),
                    Some(Outcome::Failed) => found.push(format!("aborted read: {place:?} holds {id:?}, which failed")),
                    Some(_) => {}
                }
                if let Some(before) = seen.insert(id, place) {
                    found.push(format!("duplicate: {id:?} is at {before:?} and at {place:?}"));
                }
                if last.insert(id.0, id.1).is_some_and(|last| last > id.1) {
                    found.push(format!("order: {id:?} at {place:?} comes behind a later one of its producer"));
                }
            }
        }
        found
    }

    fn lost(&self, read: &Partitions) -> Vec<String> {
        let at = |delivered: &Delivered| {
            let records = read.get(&delivered.partition)?;
            let place = records.binary_search_by_key(&delivered.offset, |record| record.offset).ok()?;
            id(records[place].value.as_deref()?)
        };
        let acked = self.sent.iter().filter_map(|(id, outcome)| match outcome {
            Outcome::Acked(delivered) => Some((id, delivered)),
            _ => None,
        });
        let lost = acked.filter(|(id, delivered)| at(delivered) != Some(**id));
        lost.map(|(id, delivered)| format!("lost: {id:?} was acknowledged at {delivered:?} and is not there")).collect()
    }

    /// Panics with the first violations, if there are any.
    ///
    /// # Panics
    /// That is its purpose.
    pub fn check(&self, read: &Partitions) {
        let found = self.violations(read);
        let shown: Vec<_> = found.iter().take(20).map(String::as_str).collect();
        assert!(found.is_empty(), "{} violations:\n{}", found.len(), shown.join("\n"));
    }
}

fn offsets(read: &Partitions) -> Vec<String> {
    let gaps = |(partition, records): (&u32, &Vec<crate::read::Read>)| {
        let pairs = records.windows(2).filter(|pair| pair[0].offset + 1 != pair[1].offset);
        let gap = |pair: &[crate::read::Read]| {
            format!("offsets: {} follows {} in partition {partition}", pair[1].offset, pair[0].offset)
        };
        pairs.map(gap).collect::<Vec<_>>()
    };
    read.iter().flat_map(gaps).collect()
}

/// The value of a record: its id, and 0 to `filler_bytes_max` bytes that follow from it.
#[must_use]
pub fn value((producer, sequence): Id, filler_bytes_max: usize) -> Vec<u8> {
    let mut random = Random::new((u64::from(producer) << 40) ^ sequence);
    let filler_bytes = random.below(filler_bytes_max + 1);
    let mut value = format!("{producer} {sequence} {filler_bytes} ").into_bytes();
    value.extend((0..filler_bytes).map(|_| b' ' + (random.next_u64() % 95) as u8));
    value
}

/// Whose value this is; none if no [`value`] has these bytes.
#[must_use]
pub fn id(bytes: &[u8]) -> Option<Id> {
    let mut parts = bytes.splitn(4, |byte| *byte == b' ');
    let mut number = || str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let id = (u32::try_from(number()?).ok()?, number()?);
    let filler_bytes = usize::try_from(number()?).ok()?;
    let filler = parts.next()?;
    let mut random = Random::new((u64::from(id.0) << 40) ^ id.1);
    random.next_u64();
    let same = filler.iter().all(|byte| *byte == b' ' + (random.next_u64() % 95) as u8);
    (filler.len() == filler_bytes && same).then_some(id)
}

/// What a delivery that has ended says about its record.
#[must_use]
pub fn outcome(delivered: Result<Delivered, Error>) -> Outcome {
    match delivered {
        Ok(delivered) => Outcome::Acked(delivered),
        Err(error) if error.outcome_unknown() || matches!(error, Error::Closed) => Outcome::Unknown,
        Err(_) => Outcome::Failed,
    }
}

/// Sends `count` records of `producer` from `first` on with their ids as keys, and waits for each.
///
/// # Errors
/// If the producer cannot be made.
pub async fn send(client: &Client, topic: &str, producer: u32, numbers: std::ops::Range<u64>) -> Result<History, Error> {
    let sender = client.producer(topic, flotilla_client::ProducerOptions::default()).await?;
    let mut sent: Vec<(Id, Result<Delivery, Error>)> = Vec::new();
    for sequence in numbers {
        let id = (producer, sequence);
        let key = sequence.to_string();
        sent.push((id, sender.send(Record::new(&value(id, 200)).key(&key)).await));
    }
    let mut history = History::default();
    for (id, delivery) in sent {
        let delivered = match delivery {
            Ok(delivery) => delivery.await,
            Err(error) => Err(error),
        };
        history.resolve(id, outcome(delivered));
    }
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Read;

    fn acked(offset: u64) -> Outcome {
        Outcome::Acked(Delivered { partition: 0, offset })
    }

    fn record(offset: u64, id: Id) -> Read {
        Read { offset, key: None, value: Some(value(id, 50)) }
    }

    fn violations(records: &[(u64, Id)]) -> Vec<String> {
        let mut history = History::default();
        history.resolve((1, 0), acked(0));
        history.resolve((1, 1), acked(1));
        history.sent((1, 2));
        history.resolve((1, 3), Outcome::Failed);
        history.violations(&Partitions::from([(0, records.iter().map(|&(offset, id)| record(offset, id)).collect())]))
    }

    /// Each broken promise is found under its name, and nothing else is.
    #[test]
    fn the_checkers_find_what_is_planted() {
        let good = [(0, (1, 0)), (1, (1, 1))];
        assert_eq!(violations(&good), [""; 0]);
        assert_eq!(violations(&[good[0], good[1], (2, (1, 2))]), [""; 0]);
        for (name, records) in [
            ("lost", vec![good[0]]),
            ("duplicate", vec![good[0], good[1], (2, (1, 2)), (3, (1, 2))]),
            ("aborted read", vec![good[0], good[1], (2, (1, 3))]),
            ("phantom", vec![good[0], good[1], (2, (9, 9))]),
            ("offsets", vec![good[0], good[1], (3, (1, 2))]),
        ] {
            let found = violations(&records);
            assert!(found.len() == 1 && found[0].starts_with(name), "{name}: {found:?}");
        }
        assert!(violations(&[(0, (1, 1)), (1, (1, 0))]).iter().any(|found| found.starts_with("order")));
    }

    #[test]
    fn a_changed_byte_makes_a_value_nobodys() {
        for sequence in 0..100 {
            let mut bytes = value((3, sequence), 50);
            assert_eq!(id(&bytes), Some((3, sequence)));
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert_ne!(id(&bytes), Some((3, sequence)));
            assert_ne!(id(&bytes[..last]), Some((3, sequence)));
        }
        assert_eq!(id(b""), None);
    }
}
