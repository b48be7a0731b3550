//! Whoever runs the cluster, and a topic that never rests: replicas move, leads are handed over, logs are purged.

use std::time::Duration;

use bytes::Bytes;
use flotilla_broker::{Broker, Codec, NewRecord, Payload, Produce, TopicError};
use tokio::time::sleep;

use super::clients::{Client, PASSING, TOPIC, write};

/// Between two orders, at most.
const PAUSE_MS_MAX: u64 = 2_500;
/// Between two records of the topic that never rests.
const CHURN_PAUSE: Duration = Duration::from_millis(25);
const CHURN_BYTES: usize = 8_000;

/// What is ordered.
#[derive(Debug, Clone)]
enum Order {
    /// A partition shall have these replicas.
    Move(u64, Vec<u64>),
    /// A move shall not go on.
    Cancel(u64),
    /// Another replica shall lead.
    Transfer(u64, u64),
}

impl Client {
    /// Gives orders until told to stop; what is refused is tried nowhere else.
    pub async fn operate(mut self) {
        while !*self.shared.stop.borrow() {
            sleep(Duration::from_millis(self.random.next_u64() % PAUSE_MS_MAX)).await;
            self.turn_to(None);
            let (chosen, kind) = (self.random.next_u64(), self.random.next_u64() % 4);
            let given = self.call(|broker| async move { give(&broker, chosen, kind).await }).await;
            if let Some(Some((order, given))) = given {
                tracing::info!(?order, error = given.err().map(|error| error.to_string()), "ordered");
            }
        }
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

/// Gives an order that `chosen` and `kind` name, as the node knows the cluster.
async fn give(broker: &Broker, chosen: u64, kind: u64) -> Option<(Order, Result<(), TopicError>)> {
    let order = order(broker, chosen, kind)?;
    let given = match order.clone() {
        Order::Move(group, target) => broker.start_move(group, target).await,
        Order::Cancel(group) => broker.cancel_move(group).await,
        Order::Transfer(group, node) => broker.transfer_leader(group, node).await,
    };
    Some((order, given))
}

fn order(broker: &Broker, chosen: u64, kind: u64) -> Option<Order> {
    let image = broker.image();
    let partitions: Vec<_> =
        [TOPIC, PASSING].iter().filter_map(|name| image.topic(name)).flat_map(|topic| &topic.partitions).collect();
    let partition = partitions.get(usize::try_from(chosen % partitions.len().max(1) as u64).ok()?)?;
    let nodes: Vec<u64> = image.nodes().map(|(node, _)| node).collect();
    let from = usize::try_from(chosen / 7 % nodes.len().max(1) as u64).ok()?;
    Some(match kind {
        0 => Order::Transfer(partition.group_id, partition.replicas.get(from % partition.replicas.len().max(1))?.node),
        1 if partition.target.is_some() => Order::Cancel(partition.group_id),
        _ => {
            let target = nodes.iter().cycle().skip(from).take(partition.replicas.len()).copied().collect();
            Order::Move(partition.group_id, target)
        }
    })
}
