//! Reading everything, from every replica: one replica after the other is made the leader of its partitions, and each
//! time all of them are read, through another node.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Error, api};
use tokio::time::{Instant, timeout};

use super::{PATIENCE, Run};
use crate::fault::Leaders;
use crate::history::{FinalRead, Seen};
use crate::workload::topic;

const RETRY_INTERVAL: Duration = Duration::from_millis(200);

type Partitions = BTreeMap<u32, Vec<Seen>>;

impl Run {
    /// Where each partition ends, once all of them say so.
    pub(super) async fn ends(&mut self) -> Option<BTreeMap<u32, u64>> {
        let ask = async || topic::ends(&self.client().await?, &self.options.workload.topic).await;
        match again_until(PATIENCE, ask).await {
            Ok(ends) => Some(ends),
            Err(error) => {
                self.void_because.push(format!("healed for {PATIENCE:?}, and the ends of the partitions are not known: {error}"));
                None
            }
        }
    }

    /// How long reading the whole topic may take: what was written in some time is read in the same, at the least.
    pub(super) fn read_patience(&self) -> Duration {
        PATIENCE + self.options.duration
    }

    /// Everything there is, through each node and from each replica; up to the first read that fails, which makes the run void.
    pub(super) async fn final_reads(&mut self) -> Vec<FinalRead> {
        let replicas = match again_until(PATIENCE, async || self.replicas().await).await {
            Ok(replicas) => replicas,
            Err(error) => {
                self.void_because.push(format!("healed for {PATIENCE:?}, and the partitions are not known: {error}"));
                return Vec::new();
            }
        };
        let replication_factor = self.options.replication_factor as usize;
        let nodes: Vec<(u64, String)> = self.cluster.nodes().iter().map(|node| (node.id(), node.address())).collect();
        let rounds = nodes.len().max(replication_factor);
        let mut reads = Vec::new();
        for (round, (id, address)) in nodes.iter().cycle().take(rounds).enumerate() {
            let turn = round % replication_factor.max(1);
            let source = format!("node {id}, which asked replica {turn} of each partition");
            match again_until(PATIENCE, async || self.read_replica(&replicas, turn, address).await).await {
                Ok(partitions) => reads.push(FinalRead { source, partitions }),
                Err(error) => {
                    self.void_because.push(format!("the final read from {source} failed: {error}"));
                    break;
                }
            }
        }
        reads
    }

    /// Each partition's replicas as the metadata has them now.
    async fn replicas(&self) -> Result<BTreeMap<u32, Vec<u64>>, Error> {
        let described = topic::describe(&self.client().await?, &self.options.workload.topic).await?;
        Ok(described.into_iter().map(|partition| (partition.partition, partition.replicas)).collect())
    }

    /// Reads everything through `address` while the replica whose `turn` it is leads each partition.
    async fn read_replica(&self, replicas: &BTreeMap<u32, Vec<u64>>, turn: usize, address: &str) -> Result<Partitions, String> {
        let say = |error: Error| error.to_string();
        let client = self.client().await.map_err(say)?;
        let name = &self.options.workload.topic;
        let mut wanted = Leaders::new();
        for partition in topic::describe(&client, name).await.map_err(say)? {
            let mut order = replicas.get(&partition.partition).cloned().unwrap_or_default();
            let places = order.len().max(1);
            order.rotate_left(turn % places);
            wanted.insert(partition.partition, order.first().copied());
            if order != partition.replicas {
                // Only the order changes: the first one is to lead, and soon does.
                let (topic, partition) = (name.clone(), partition.partition);
                let request = api::MovePartitionRequest { topic, partition, replicas: order };
                client.move_partition(request).await.map_err(say)?;
            }
        }
        let lead = async || match topic::leaders(&client, name).await.map_err(say)? {
            leaders if leaders == wanted => Ok(()),
            leaders => Err(format!("the leaders are {leaders:?} and should become {wanted:?}")),
        };
        again_until(PATIENCE, lead).await?;
        let patience = self.read_patience();
        let read = timeout(patience, topic::read_all(address, name)).await;
        let read = read.unwrap_or(Err(Error::Timeout(patience))).map_err(say)?;
        // If another replica took over meanwhile, it is not known whose records these are.
        lead().await.map(|()| read)
    }

    async fn client(&self) -> Result<Client, Error> {
        Client::connect(self.cluster.addresses(0).1, ClientOptions::default()).await
    }
}

/// Tries until it succeeds; the last error if it does not begin to within `patience`.
async fn again_until<T, E: Display>(patience: Duration, attempt: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt().await {
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
            done => return done,
        }
    }
}
