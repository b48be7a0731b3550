//! What was written to each topic and what became of it, and what was read at the end: a history for each topic, judged by
//! the checkers that all runs share.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_client::{Client, Error, ProducerOptions, Record};
use tokio::time::{Instant, timeout, timeout_at};

use crate::checkers;
use crate::history::{Clock, FinalRead, History, Outcome, value};
use crate::workload::topic;

/// For reading a topic to its end.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Behind the time after which records are given up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    clock: Clock,
    /// Each producer is a new one.
    producers: u32,
    topics: BTreeMap<String, Topic>,
}

#[derive(Debug, Clone)]
struct Topic {
    partitions: u32,
    /// Records of which the client never said what became of them, although their time was over.
    silent: u64,
    history: History,
}

/// A partition of a topic.
pub(super) type At = (String, u32);

/// What is written at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Records for each partition.
    pub records: u32,
    /// Bytes of each.
    pub bytes: usize,
    /// After how long they are given up.
    pub patience: Duration,
}

impl Ledger {
    pub fn new() -> Self {
        Self { clock: Clock::start(), producers: 0, topics: BTreeMap::new() }
    }

    /// Begins to remember a topic that is empty.
    pub fn begin(&mut self, name: &str, partitions: u32) {
        self.topics.insert(name.to_owned(), Topic { partitions, silent: 0, history: History::default() });
    }

    pub fn names(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }

    /// Records acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.topics.values().map(|topic| topic.history.counts().ok).sum()
    }

    /// Writes to every partition of a topic. Those of which not every record was acknowledged, and why.
    pub async fn write(&mut self, client: &Client, name: &str, load: Load) -> BTreeMap<At, String> {
        let number = self.producers;
        self.producers += 1;
        let Some(topic) = self.topics.get_mut(name) else { return BTreeMap::new() };
        let all = |why: String| (0..topic.partitions).map(|partition| ((name.to_owned(), partition), why.clone())).collect();
        let options = ProducerOptions { delivery_timeout: load.patience, ..ProducerOptions::default() };
        let producer = match timeout(load.patience, client.producer(name, options)).await {
            Ok(Ok(producer)) => producer,
            Ok(Err(error)) => return all(error.to_string()),
            Err(_) => return all(format!("no producer within {:?}", load.patience)),
        };
        let silence = load.patience + CLOSE_TIMEOUT;
        let mut failed = BTreeMap::new();
        let mut deliveries = Vec::new();
        for _ in 0..load.records {
            for partition in 0..topic.partitions {
                let id = topic.history.invoke(number, 0, 0, partition, self.clock.now());
                let value = value::encode(id, load.bytes);
                let sent = timeout(silence, producer.send(Record::new(&value).partition(partition))).await;
                match sent.unwrap_or(Err(Error::Timeout(silence))) {
                    Ok(delivery) => deliveries.push((id, partition, delivery)),
                    Err(error) => {
                        topic.history.resolve(id, Outcome::Fail, self.clock.now());
                        failed.insert((name.to_owned(), partition), error.to_string());
                    }
                }
            }
        }
        let deadline = Instant::now() + silence;
        for (id, partition, delivery) in deliveries {
            let delivered = timeout_at(deadline, delivery).await;
            let delivered = delivered.unwrap_or_else(|_| {
                topic.silent += 1;
                Err(Error::Timeout(load.patience))
            });
            let outcome = match &delivered {
                Ok(delivered) => Outcome::Ok(delivered.offset),
                Err(error) if error.outcome_unknown() || matches!(error, Error::Closed) => Outcome::Info,
                Err(_) => Outcome::Fail,
            };
            topic.history.resolve(id, outcome, self.clock.now());
            if let Err(error) = delivered {
                failed.insert((name.to_owned(), partition), error.to_string());
            }
        }
        // What became of each record is known by now.
        let _ = timeout(CLOSE_TIMEOUT, producer.close()).await;
        failed
    }

    /// Reads all topics through `address`. What could not be read, and every promise that what was read breaks.
    pub async fn read(&mut self, address: &str, when: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, topic) in &mut self.topics {
            // What is written later cannot be in an earlier read: each is judged at once, and by itself.
            topic.history.final_reads.clear();
            let read = timeout(READ_TIMEOUT, topic::read_all(address, name)).await;
            match read.unwrap_or(Err(Error::Timeout(READ_TIMEOUT))) {
                Ok(partitions) => topic.history.final_reads.push(FinalRead { source: when.to_owned(), partitions }),
                Err(error) => wrong.push(format!("topic {name} cannot be read {when}: {error}")),
            }
        }
        wrong.extend(self.broken());
        wrong
    }

    fn broken(&self) -> Vec<String> {
        let of_topic = |(name, topic): (&String, &Topic)| {
            let findings = checkers::check_all(&topic.history).into_iter().filter(|finding| finding.violations > 0);
            let words = findings.map(|finding| {
                let example = finding.examples.into_iter().next().unwrap_or_default();
                format!("topic {name}, {} ({} times): {example}", finding.checker, finding.violations)
            });
            let silent = topic.silent;
            let silence = (silent > 0).then(|| format!("topic {name}: the client never said what became of {silent} records"));
            words.chain(silence).collect::<Vec<_>>()
        };
        self.topics.iter().flat_map(of_topic).collect()
    }
}
