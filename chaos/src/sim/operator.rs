//! Whoever runs the cluster, and a topic that never rests: replicas move, leads are handed over, topics come and go, logs are
//! purged.

use std::time::Duration;

use bytes::Bytes;
use flotilla_broker::{Broker, Codec, ConfigChange, CreateTopic, NewRecord, Payload, Produce, TopicError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::clients::{AGAIN, Client, Clients, PASSING, SINGLE, TOPIC, write};
use super::plan::Fault;

/// How long an order is tried.
const ORDER_PATIENCE: Duration = Duration::from_secs(5);
/// Between two records of the topic that never rests.
const CHURN_PAUSE: Duration = Duration::from_millis(25);
const CHURN_BYTES: usize = 8_000;
/// Numbers of the operator's hands.
const HANDS: u32 = 4_000;

impl Clients {
    /// Gives the orders that come until nobody sends any more; each by a hand of its own.
    pub async fn operate(self, mut orders: mpsc::Receiver<Fault>, seed: u64) {
        let (hands, mut number) = (TaskTracker::new(), HANDS);
        while let Some(order) = orders.recv().await {
            number += 1;
            hands.spawn(self.client(number, seed).order(order));
        }
        hands.close();
        hands.wait().await;
    }
}

impl Client {
    /// Gives an order until somebody carries it out, or refuses it.
    async fn order(mut self, order: Fault) {
        let until = Instant::now() + ORDER_PATIENCE;
        while Instant::now() < until && !*self.shared.stop.borrow() {
            self.turn_to(None);
            let wanted = order.clone();
            let given = self.call(|broker| async move { give(&broker, wanted).await }).await;
            match given {
                Some(Ok(())) => {
                    tracing::info!(?order, "ordered");
                    return;
                }
                Some(Err(TopicError::Refused(error))) => {
                    tracing::info!(?order, %error, "refused");
                    return;
                }
                Some(Err(_)) | None => sleep(AGAIN).await,
            }
        }
        tracing::info!(?order, "given up");
    }

    /// Writes to the topic of which little stays until told to stop.
    pub async fn churn(mut self) {
        while !*self.shared.stop.borrow() {
            sleep(CHURN_PAUSE).await;
            let value = Some(Bytes::from(vec![b'.'; self.random.below(CHURN_BYTES)]));
            let record = NewRecord { value, ..NewRecord::default() };
            let payload = Payload::Records { records: vec![record], codec: Codec::None, producer: None };
            let request = Produce { topic: PASSING.to_owned(), partition: Some(0), payload };
            let written = self.call(|broker| async move { write(&broker, request).await }).await;
            if !matches!(written, Some(Ok(_))) {
                self.turn_to(None);
            }
        }
    }
}

/// A topic that comes and goes.
fn name(number: u32) -> String {
    format!("extra-{number}")
}

/// As many of `to` as there are replicas, and not the same ones, if that can be.
fn elsewhere(mut to: Vec<u64>, replicas: &[u64]) -> Vec<u64> {
    for _ in 0..to.len() {
        let target = to.get(..replicas.len()).unwrap_or(&to);
        if !target.iter().all(|node| replicas.contains(node)) {
            break;
        }
        to.rotate_left(1);
    }
    to.truncate(replicas.len());
    to
}

async fn give(broker: &Broker, order: Fault) -> Result<(), TopicError> {
    let image = broker.image();
    let layout = |partition: usize| {
        let topics = [TOPIC, SINGLE, PASSING].into_iter().filter_map(|name| image.topic(name));
        topics.flat_map(|topic| &topic.partitions).nth(partition)
    };
    match order {
        Fault::Move { partition, to } => {
            let Some(layout) = layout(partition) else { return Ok(()) };
            broker.start_move(layout.group_id, elsewhere(to, &layout.nodes().collect::<Vec<_>>())).await
        }
        Fault::Cancel { partition } => match layout(partition) {
            Some(layout) => broker.cancel_move(layout.group_id).await,
            None => Ok(()),
        },
        Fault::Lead { partition, node } => match layout(partition) {
            Some(layout) => broker.transfer_leader(layout.group_id, node).await,
            None => Ok(()),
        },
        Fault::CreateTopic { number, replicas } => {
            let replication_factor = Some(replicas.min(image.nodes().count() as u32));
            let topic = CreateTopic { name: name(number), partitions: Some(1), replication_factor, ..CreateTopic::default() };
            let topic = CreateTopic { if_not_exists: true, config: ConfigChange::default(), ..topic };
            broker.create_topic(topic).await.map(|_| ())
        }
        Fault::DeleteTopic { number } => broker.delete_topic(&name(number), true).await.map(|_| ()),
        _ => Ok(()),
    }
}
