//! What the client knows about topics: how many partitions, who leads them, and the limits of the server. Cached;
//! fetched again when a node says that it is not the leader.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flotilla_proto::v1;

use crate::error::Error;

/// What the server accepts.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest request in bytes.
    pub request_bytes_max: u64,
    /// Largest record batch in bytes, as sent. A topic may allow less.
    pub batch_bytes_max: u64,
    /// Largest record batch in bytes, decompressed.
    pub decompressed_bytes_max: u64,
    /// Most records in a batch.
    pub records_per_batch_max: u32,
    /// Suggested wait before the first retry.
    pub retry_backoff: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 16 << 20,
            batch_bytes_max: 16 << 20,
            decompressed_bytes_max: 64 << 20,
            records_per_batch_max: 1_000_000,
            retry_backoff: Duration::from_millis(50),
        }
    }
}

impl From<v1::Limits> for Limits {
    fn from(limits: v1::Limits) -> Self {
        let default = Self::default();
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        Self {
            request_bytes_max: or(limits.request_bytes_max, default.request_bytes_max),
            batch_bytes_max: or(limits.batch_bytes_max, default.batch_bytes_max),
            decompressed_bytes_max: or(limits.decompressed_bytes_max, default.decompressed_bytes_max),
            records_per_batch_max: match limits.records_per_batch_max {
                0 => default.records_per_batch_max,
                max => max,
            },
            retry_backoff: (limits.retry_backoff)
                .and_then(|backoff| backoff.try_into().ok())
                .filter(|backoff: &Duration| !backoff.is_zero())
                .unwrap_or(default.retry_backoff),
        }
    }
}

/// A topic as the client last saw it.
#[derive(Debug, Clone)]
pub struct TopicView {
    /// UUID of the topic, 36 characters. One that is created again under the same name has another.
    pub id: Arc<str>,
    /// Number of partitions; they are numbered from 0.
    pub partition_count: u32,
    /// Largest record batch that the topic accepts, in bytes as sent.
    pub batch_bytes_max: u64,
    /// Address of each partition's leader, where it is known.
    leaders: Vec<Option<Arc<str>>>,
}

impl TopicView {
    /// Address of the leader of `partition`, if it has one.
    #[must_use]
    pub fn leader(&self, partition: u32) -> Option<Arc<str>> {
        self.leaders.get(partition as usize)?.clone()
    }

    fn new(topic: v1::TopicMetadata, nodes: &HashMap<u64, Arc<str>>, limits: &Limits) -> Result<(String, Self), Error> {
        let described = topic.topic.ok_or_else(|| Error::Protocol("metadata names no topic".to_owned()))?;
        let partition_count = described.partition_count;
        if partition_count == 0 {
            return Err(Error::Protocol(format!("topic {} has no partition", described.name)));
        }
        let mut leaders = vec![None; partition_count as usize];
        for partition in topic.partitions {
            if let Some(slot) = leaders.get_mut(partition.partition as usize) {
                *slot = partition.leader.and_then(|leader| nodes.get(&leader).cloned());
            }
        }
        let own_max = described.config.and_then(|config| config.batch_bytes_max).filter(|max| *max > 0);
        let batch_bytes_max = own_max.unwrap_or(limits.batch_bytes_max).min(limits.batch_bytes_max);
        Ok((described.name, Self { id: described.id.into(), partition_count, batch_bytes_max, leaders }))
    }
}

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    limits: Limits,
    topics: HashMap<String, Arc<TopicView>>,
    fetched_at: HashMap<String, Instant>,
    /// Topics that are being fetched again.
    refreshing: HashSet<String>,
}

impl Metadata {
    pub fn limits(&self) -> Limits {
        self.lock().limits
    }

    pub fn topic(&self, name: &str) -> Option<Arc<TopicView>> {
        self.lock().topics.get(name).cloned()
    }

    pub fn forget(&self, topic: &str) {
        let mut known = self.lock();
        known.topics.remove(topic);
        known.fetched_at.remove(topic);
    }

    /// How long ago a topic was fetched.
    pub fn age(&self, topic: &str) -> Option<Duration> {
        self.lock().fetched_at.get(topic).map(Instant::elapsed)
    }

    /// Corrects who leads some partitions.
    pub fn set_leaders(&self, topic: &str, partitions: impl IntoIterator<Item = u32>, leader: Option<Arc<str>>) {
        let mut known = self.lock();
        let Some(view) = known.topics.get_mut(topic) else { return };
        let view = Arc::make_mut(view);
        for partition in partitions {
            if let Some(slot) = view.leaders.get_mut(partition as usize) {
                slot.clone_from(&leader);
            }
        }
    }

    /// Whether the caller is the one to fetch `topic` again; it calls [`refreshed`](Metadata::refreshed) afterwards.
    pub fn start_refresh(&self, topic: &str) -> bool {
        self.lock().refreshing.insert(topic.to_owned())
    }

    pub fn refreshed(&self, topic: &str) {
        self.lock().refreshing.remove(topic);
    }

    pub fn update(&self, answer: v1::GetMetadataResponse) -> Result<(), Error> {
        let limits = answer.limits.map(Limits::from).unwrap_or_default();
        let nodes = answer.nodes.into_iter().map(|node| (node.node_id, node.address.into())).collect();
        let topics: Result<Vec<_>, Error> =
            answer.topics.into_iter().map(|topic| TopicView::new(topic, &nodes, &limits)).collect();
        let (topics, now) = (topics?, Instant::now());
        let mut known = self.lock();
        known.limits = limits;
        known.fetched_at.extend(topics.iter().map(|(name, _)| (name.clone(), now)));
        known.topics.extend(topics.into_iter().map(|(name, view)| (name, Arc::new(view))));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
