//! Topics that this node has not heard of yet: the metadata reaches it a moment after it reached the controller's leader,
//! and who has just created a topic through one node may use it through any other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_broker::{Broker, Image, Topic, TopicRef};
use flotilla_proto::v1;
use flotilla_proto::v1::cluster_client::ClusterClient;

use super::{Call, Envelope, Gateway, PAUSE, Problem, Repeat, Target};

/// How long an answer waits for this node to hear of what it says: somebody may have changed it again.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

impl Gateway {
    /// A topic, with at least the partition asked for, if the cluster has it.
    ///
    /// # Errors
    /// If the controller's leader does not know it either, or knows another one of that name.
    pub async fn topic<'a>(
        &self,
        broker: &Broker,
        call: Call,
        topic: impl Into<TopicRef<'a>>,
        partition: Option<u32>,
    ) -> Result<Arc<Topic>, Problem> {
        let topic = topic.into();
        let name = topic.name;
        if name.is_empty() {
            return Err(Problem::field("topic", "is missing: name one"));
        }
        if let Ok(found) = topic.find(&broker.image())
            && has(found, partition)
        {
            return Ok(found.clone());
        }
        let lookup = v1::GetMetadataRequest { topics: vec![name.to_owned()] };
        // An absent topic is unknown: that is all that is asked about it. Who is asked directly does not ask further.
        let here = || async { local(broker, topic).map(|_| None) };
        let there = |channel, envelope: Envelope| {
            let request = envelope.around(lookup.clone());
            async move { ClusterClient::new(channel).get_metadata(request).await.map(|answer| answer.map(Some)) }
        };
        if call.direct {
            return local(broker, topic);
        }
        let Some(known) = self.at_leader(call, &Target::Controller, Repeat::Read, here, there).await? else {
            return local(broker, topic);
        };
        // The controller's leader has it, so it comes.
        while broker.image().version() < known.version && Instant::now() < call.patient_until {
            tokio::time::sleep(PAUSE).await;
        }
        local(broker, topic)
    }

    /// A partition by its topic and its number.
    ///
    /// # Errors
    /// If the cluster does not have it.
    pub async fn partition<'a>(
        &self,
        broker: &Broker,
        call: Call,
        topic: impl Into<TopicRef<'a>>,
        partition: u32,
    ) -> Result<Target, Problem> {
        let topic = self.topic(broker, call, topic, Some(partition)).await?;
        Target::existing(&topic, partition)
    }

    /// Waits until this node knows of a change, so that who made it through this node finds it here.
    pub async fn caught_up(&self, broker: &Broker, call: Call, known: impl Fn(&Image) -> bool) {
        let until = call.patient_until.min(Instant::now() + CATCH_UP_MAX);
        while !known(&broker.image()) && Instant::now() < until {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn has(topic: &Topic, partition: Option<u32>) -> bool {
    partition.is_none_or(|partition| (partition as usize) < topic.partitions.len())
}

/// The partitions named, each once, or all.
pub fn partitions(topic: &Topic, named: &[u32]) -> BTreeSet<u32> {
    let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
    if named.is_empty() { (0..count).collect() } else { named.iter().copied().collect() }
}

fn local(broker: &Broker, topic: TopicRef<'_>) -> Result<Arc<Topic>, Problem> {
    Ok(topic.find(&broker.image()).cloned()?)
}
