//! An idempotent producer that writes at a steady rate, whatever the answers do, to every partition in turn.

use std::sync::Arc;
use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Delivery, Error, Producer, ProducerOptions, Record};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Shared;
use crate::history::{Clock, Id, Outcome, micros, value};

/// Records of one partition whose outcome may be waited for; the producer waits beyond it.
const WAITING_MAX: usize = 1 << 16;
/// Between two attempts to make a producer.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Small batches, so that many are on their way when something happens.
const LINGER: Duration = Duration::from_millis(2);

/// Deliveries of one partition are resolved in order, so each partition has a queue of its own: one that stalls does not
/// hide when the others were acknowledged.
type Waiting = Vec<mpsc::Sender<(Id, Delivery)>>;

pub(super) async fn run(shared: Arc<Shared>, number: u32, via: (u64, Vec<String>), mut stop: watch::Receiver<bool>) {
    let (waiting, notes): (Waiting, Vec<JoinHandle<()>>) = (0..shared.options.partitions)
        .map(|_| {
            let (waiting, deliveries) = mpsc::channel(WAITING_MAX);
            (waiting, tokio::spawn(note(Arc::clone(&shared), deliveries)))
        })
        .unzip();
    let mut writer = Writer { pace: Pace::new(&shared), shared, number, node: via.0, session: 0, waiting };
    while !*stop.borrow() {
        let made = tokio::select! {
            made = connect(&writer.shared, &via.1) => made,
            _ = stop.changed() => break,
        };
        match made {
            Ok(producer) => {
                writer.write(&producer, &mut stop).await;
                // What became of each record is noted by itself.
                let _ = producer.close().await;
            }
            Err(error) => {
                writer.shared.notes().error(&format!("producer {number}"), &error);
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
        writer.session += 1;
    }
    drop(writer);
    for note in notes {
        // It ends with its queue; a panic in it leaves outcomes unknown, which is what they are then.
        let _ = note.await;
    }
}

async fn connect(shared: &Shared, addresses: &[String]) -> Result<Producer, Error> {
    let client = Client::connect(addresses, ClientOptions::default()).await?;
    let delivery_timeout = shared.options.delivery_timeout;
    let options = ProducerOptions { linger: LINGER, delivery_timeout, ..ProducerOptions::default() };
    client.producer(&shared.options.topic, options).await
}

struct Writer {
    shared: Arc<Shared>,
    number: u32,
    node: u64,
    session: u32,
    pace: Pace,
    waiting: Waiting,
}

impl Writer {
    /// Writes until it is told to stop, or the producer refuses.
    async fn write(&mut self, producer: &Producer, stop: &mut watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = self.pace.next() => {}
                _ = stop.changed() => return,
            }
            let partition = self.partition();
            let now = self.shared.clock.now();
            let id = self.shared.notes().history.invoke(self.number, self.session, self.node, partition, now);
            let value = value::encode(id, self.shared.options.record_bytes);
            match producer.send(Record::new(&value).partition(partition)).await {
                Ok(delivery) => {
                    if let Some(waiting) = self.waiting.get(partition as usize) {
                        // Only fails if the task behind it panicked: the outcome stays unknown.
                        let _ = waiting.send((id, delivery)).await;
                    }
                }
                Err(error) => {
                    let now = self.shared.clock.now();
                    let mut notes = self.shared.notes();
                    notes.history.resolve(id, Outcome::Fail, now);
                    notes.error(&format!("producer {}", self.number), &error);
                    return;
                }
            }
        }
    }

    /// Each producer begins elsewhere, so that they do not all write to one partition at a time.
    fn partition(&self) -> u32 {
        let sent = self.pace.count + u64::from(self.number);
        u32::try_from(sent % u64::from(self.shared.options.partitions.max(1))).unwrap_or_default()
    }
}

/// When each record is due. What a stall held up is caught up with.
struct Pace {
    clock: Clock,
    interval: Duration,
    began_at: Option<u64>,
    count: u64,
}

impl Pace {
    fn new(shared: &Shared) -> Self {
        let per_second = f64::from(shared.options.rate.max(1)) / f64::from(shared.options.producers.max(1));
        Self { clock: shared.clock, interval: Duration::from_secs_f64(1.0 / per_second), began_at: None, count: 0 }
    }

    async fn next(&mut self) {
        let began_at = *self.began_at.get_or_insert_with(|| self.clock.now());
        let since = self.interval.mul_f64(self.count as f64);
        tokio::time::sleep_until(self.clock.instant(began_at + micros(since))).await;
        self.count += 1;
    }
}

async fn note(shared: Arc<Shared>, mut deliveries: mpsc::Receiver<(Id, Delivery)>) {
    while let Some((id, delivery)) = deliveries.recv().await {
        let delivered = delivery.await;
        let now = shared.clock.now();
        let mut notes = shared.notes();
        match delivered {
            Ok(delivered) => notes.history.resolve(id, Outcome::Ok(delivered.offset), now),
            Err(error) => {
                // A closed producer abandons what it has: nobody knows how far that came.
                let unknown = error.outcome_unknown() || matches!(error, Error::Closed);
                notes.history.resolve(id, if unknown { Outcome::Info } else { Outcome::Fail }, now);
                notes.error(&format!("record {id}"), &error);
            }
        }
    }
}
