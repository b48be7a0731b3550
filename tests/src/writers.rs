//! Producers that write in the background while something is done to their server, and the history of what they wrote.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla_client::{Client, Codec, Delivery, ProducerOptions, Record};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::history::{self, History, Id};

/// Records of one producer that wait for their acknowledgement.
const WAITING_MAX: usize = 2_000;
/// Acknowledgements that have not come by then do not come.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);
const VALUE_BYTES_MAX: usize = 300;

/// Idempotent producers that write until they are stopped.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    history: Mutex<History>,
}

impl Writers {
    /// `count` producers of `topic`, which retry for `delivery_timeout`. Every other writes with one key, so that all its
    /// records go to one partition.
    ///
    /// # Panics
    /// If a producer cannot be made.
    pub async fn start(client: &Client, topic: &str, count: u32, delivery_timeout: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = Vec::new();
        for number in 0..count {
            let codec = [Codec::None, Codec::Zstd, Codec::Lz4][number as usize % 3];
            let options = ProducerOptions {
                codec,
                delivery_timeout,
                batch_bytes: 8 << 10,
                buffer_bytes: 1 << 20,
                linger: Duration::from_millis(1),
                ..ProducerOptions::default()
            };
            let producer = client.producer(topic, options).await.unwrap();
            let (waiting, delivered) = mpsc::channel(WAITING_MAX);
            tasks.push(tokio::spawn(write(producer, number, Arc::clone(&shared), waiting)));
            tasks.push(tokio::spawn(note(Arc::clone(&shared), delivered)));
        }
        Self { shared, tasks }
    }

    /// Records acknowledged so far.
    ///
    /// # Panics
    /// If a writer panicked.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.shared.history.lock().unwrap().acked()
    }

    /// Waits until this many `more` records are acknowledged.
    ///
    /// # Panics
    /// If they do not come.
    pub async fn wait_for_acks(&self, more: usize) {
        let target = self.acked() + more;
        let acked = async {
            while self.acked() < target {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(ACK_TIMEOUT, acked).await.expect("nothing is acknowledged any more");
    }

    /// What is known at this moment. What has no answer yet is unknown.
    ///
    /// # Panics
    /// If a writer panicked.
    #[must_use]
    pub fn history(&self) -> History {
        self.shared.history.lock().unwrap().clone()
    }

    /// Writes no more, and waits until it is known of each record what became of it.
    ///
    /// # Panics
    /// If a writer panicked.
    pub async fn stop(self) -> History {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.shared.history.lock().unwrap().clone()
    }
}

async fn write(producer: flotilla_client::Producer, number: u32, shared: Arc<Shared>, waiting: mpsc::Sender<(Id, Delivery)>) {
    let key = number.is_multiple_of(2).then(|| format!("producer-{number}"));
    for sequence in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let id = (number, sequence);
        let value = history::value(id, VALUE_BYTES_MAX);
        let record = Record { key: key.as_deref().map(str::as_bytes), ..Record::new(&value) };
        shared.history.lock().unwrap().sent(id);
        waiting.send((id, producer.send(record).await.unwrap())).await.unwrap();
    }
    // Failures are in the history.
    let _ = producer.close().await;
}

async fn note(shared: Arc<Shared>, mut delivered: mpsc::Receiver<(Id, Delivery)>) {
    while let Some((id, delivery)) = delivered.recv().await {
        let outcome = history::outcome(delivery.await);
        shared.history.lock().unwrap().resolve(id, outcome);
    }
}
