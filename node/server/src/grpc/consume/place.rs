//! Finds a source for each lane that has none: the partition's leader, or where nobody can lead any replica that is left,
//! because what is committed may be read anywhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flotilla_broker::{PartitionReader, Position, Stop, Topic, TopicRef};

use super::super::forward::{Leader, PAUSE, Target};
use super::super::problem::Problem;
use super::cursor::Cursor;
use super::lane::{Lane, Source};

/// How long a partition may be without any replica at hand before the client is told.
const SOURCE_PATIENCE: Duration = Duration::from_secs(30);

impl Cursor<'_> {
    /// Gives up sources that are not the best any more, because the partition's leader has moved.
    ///
    /// # Errors
    /// Where this node must serve the partition itself and another leads it.
    pub fn look_around(&mut self) -> Result<(), Problem> {
        for lane in &mut self.lanes {
            let moved = matches!(lane.source, Source::Here(_)).then(|| self.shared.gateway.leader_of(lane.group_id));
            if let Some(Leader::There(..)) = moved {
                if self.call.direct {
                    return Err(self.shared.gateway.not_leader(&target(&self.topic, lane)));
                }
                lane.lose_source(Duration::ZERO, None);
            }
        }
        Ok(())
    }

    /// Finds sources for the lanes that have none.
    ///
    /// # Errors
    /// If the topic is gone, or a partition was without any replica for too long.
    pub async fn place(&mut self) -> Result<(), Problem> {
        let now = Instant::now();
        let mut fed: BTreeMap<(u64, String), Vec<usize>> = BTreeMap::new();
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(index) else { continue };
            let Source::Nowhere { since, look_at, cause } = &lane.source else { continue };
            if *look_at > now {
                continue;
            }
            let (since, cause) = (*since, cause.clone());
            match source(self.shared, &self.topic, lane).await? {
                Found::Here(reader) => lane.source = Source::Here(Box::new(reader)),
                Found::There(node, address) => fed.entry((node, address)).or_default().push(index),
                Found::Nothing(problem) if since + SOURCE_PATIENCE <= now => return Err(cause.unwrap_or(problem)),
                Found::Nothing(problem) => lane.lose_source(PAUSE, cause.or(Some(problem))),
            }
        }
        for (node, indexes) in fed {
            let lanes = indexes.iter().filter_map(|index| self.lanes.get(*index));
            let feed = self.feeds.open(node, &self.topic, lanes.map(Lane::to_wire).collect());
            for index in indexes {
                if let Some(lane) = self.lanes.get_mut(index) {
                    lane.feed_from(feed);
                }
            }
        }
        Ok(())
    }
}

enum Found {
    Here(PartitionReader),
    There(u64, String),
    Nothing(Problem),
}

async fn source(shared: &super::Shared, topic: &Topic, lane: &Lane) -> Result<Found, Problem> {
    // A topic that was created again under the same name is another one.
    let known = TopicRef::from(topic).find(&shared.broker.image()).cloned()?;
    let leader = shared.gateway.leader_of(lane.group_id);
    if let Leader::There(node, address) = leader {
        return Ok(Found::There(node, address));
    }
    let stop = lane.stop.map_or(Stop::Never, Stop::Before);
    match shared.broker.reader(topic, lane.partition, Position::Offset(lane.next), stop).await.map_err(Problem::from) {
        Ok(reader) => return Ok(Found::Here(reader)),
        Err(problem) if !problem.is_passing() => return Err(problem),
        Err(problem) if leader == Leader::Here => return Ok(Found::Nothing(problem)),
        Err(_) => {}
    }
    let layout = known.partitions.get(lane.partition as usize);
    Ok(match shared.gateway.replica(layout.into_iter().flat_map(|layout| layout.nodes())) {
        Leader::There(node, address) => Found::There(node, address),
        Leader::Here | Leader::Nobody => Found::Nothing(shared.gateway.not_leader(&target(topic, lane))),
    })
}

pub(super) fn target(topic: &Topic, lane: &Lane) -> Target {
    Target::Partition { topic: topic.name.clone(), partition: lane.partition, group_id: lane.group_id }
}
