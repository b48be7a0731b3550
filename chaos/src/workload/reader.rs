//! A reader that follows every partition from its start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flotilla_client::{Assignment, Chunk, Client, ClientOptions, Consumer, ConsumerOptions, Error, Position};
use tokio::sync::watch;

use super::{Ends, Shared};
use crate::history::{Micros, Poll, Seen, value};

/// Between two attempts to make a consumer.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn run(shared: Arc<Shared>, number: u32, via: (u64, Vec<String>), until: watch::Receiver<Ends>) {
    let positions = (0..shared.options.partitions).map(|partition| (partition, 0)).collect();
    let mut reader = Reader { shared, number, node: via.0, session: 0, positions, until };
    loop {
        let error = match reader.connect(&via.1).await {
            Ok(consumer) => match reader.follow(consumer).await {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(error) => error,
        };
        reader.shared.notes().error(&format!("reader {number}"), &error);
        reader.session += 1;
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

struct Reader {
    shared: Arc<Shared>,
    number: u32,
    node: u64,
    session: u32,
    /// What comes next, by partition.
    positions: BTreeMap<u32, u64>,
    until: watch::Receiver<Ends>,
}

impl Reader {
    async fn connect(&self, addresses: &[String]) -> Result<Consumer, Error> {
        let client = Client::connect(addresses, ClientOptions::default()).await?;
        let from = |assignment: Assignment, (partition, position): (&u32, &u64)| {
            assignment.with(*partition, Position::Offset(*position))
        };
        let assignment = self.positions.iter().fold(Assignment::default(), from);
        client.consumer(&self.shared.options.topic, assignment, ConsumerOptions::default()).await
    }

    /// Reads until the ends are known and reached.
    async fn follow(&mut self, mut consumer: Consumer) -> Result<(), Error> {
        while !self.is_done() {
            let invoked = self.shared.clock.now();
            tokio::select! {
                chunk = consumer.next() => match chunk? {
                    Some(chunk) => self.note(invoked, &chunk)?,
                    None => return Err(Error::Protocol("a consumer without end ended".to_owned())),
                },
                changed = self.until.changed() => if changed.is_err() { return Ok(()) },
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let until = self.until.borrow();
        let reached = |(partition, end): (&u32, &u64)| self.positions.get(partition).is_some_and(|position| position >= end);
        until.as_ref().is_some_and(|ends| ends.iter().all(reached))
    }

    fn note(&mut self, invoked: Micros, chunk: &Chunk) -> Result<(), Error> {
        let records = seen(chunk)?;
        self.positions.insert(chunk.partition(), chunk.next_offset());
        let poll = Poll {
            reader: self.number,
            session: self.session,
            node: self.node,
            invoked,
            completed: self.shared.clock.now(),
            partition: chunk.partition(),
            high_watermark: chunk.high_watermark(),
            // Nodes that are killed together start together: no partition is without a majority for long.
            end_is_certain: true,
            records,
        };
        self.shared.notes().history.polls.push(poll);
        Ok(())
    }
}

/// The records of a chunk, as the history keeps them.
pub(super) fn seen(chunk: &Chunk) -> Result<Vec<Seen>, Error> {
    let seen = chunk.records().map(|record| {
        let record = record?;
        Ok(Seen { offset: record.offset, id: record.value.and_then(value::decode) })
    });
    seen.collect()
}
