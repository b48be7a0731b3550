//! Opening a consume stream: positions become offsets, once, so that "latest" stays where it was when a partition moves.

use std::collections::BTreeSet;

use flotilla_broker::{FetchError, PartitionReader, Position, Stop, Topic};
use flotilla_proto::v1;
use tokio::sync::mpsc;

use super::super::call::Call;
use super::super::consumer::{list_offsets, position};
use super::super::forward::{Leader, Target};
use super::super::problem::Problem;
use super::super::{Shared, convert};
use super::cursor::Cursor;
use super::feed::{Event, Feeds};
use super::lane::Lane;

/// Partitions that one stream may read.
const PARTITIONS_MAX: usize = 10_000;
/// How many of the largest pushes a feed may run ahead.
const FEED_WINDOW_PUSHES: u64 = 2;

/// A partition that another node leads, before its offset is known.
struct Remote {
    asked: v1::PartitionPosition,
    from: Position,
    group_id: u64,
}

impl<'a> Cursor<'a> {
    /// With what comes from other nodes.
    pub async fn open(
        shared: &'a Shared,
        call: Call,
        open: v1::ConsumeOpen,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>), Problem> {
        if open.partitions.is_empty() || open.partitions.len() > PARTITIONS_MAX {
            return Err(Problem::field("open.partitions", format!("must name 1 to {PARTITIONS_MAX} partitions")));
        }
        let batches = convert::wants_batches(open.encoding)?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = open.partitions.iter().find(|from| !seen.insert(from.partition)) {
            return Err(Problem::field("open.partitions", format!("names partition {} twice", twice.partition)));
        }
        let topic = convert::topic_ref(&open.topic, open.topic_id.as_deref())?;
        let topic = shared.gateway.topic(&shared.broker, call, topic, seen.last().copied()).await?;
        let (mut lanes, mut remote) = (Vec::with_capacity(open.partitions.len()), Vec::new());
        for asked in open.partitions {
            let from = position(asked.position)?;
            // One that does not exist is refused here, in the broker's words.
            let target = Target::partition(&topic, asked.partition);
            let group_id = topic.partitions.get(asked.partition as usize).map_or(0, |layout| layout.group_id);
            let leader = target.as_ref().map_or(Leader::Here, |target| shared.gateway.leader(target));
            if call.direct
                && let (Leader::There(..), Some(target)) = (&leader, &target)
            {
                return Err(shared.gateway.not_leader(target));
            }
            let here = match leader {
                Leader::There(..) => None,
                Leader::Here | Leader::Nobody => Some(reader(shared, &topic, &asked, from, open.until_end).await),
            };
            match here {
                Some(Ok(reader)) => lanes.push(Lane::here(reader, group_id)),
                Some(Err(problem)) if call.direct || !problem.is_passing() => return Err(problem),
                Some(Err(_)) | None => remote.push(Remote { asked, from, group_id }),
            }
        }
        lanes.extend(resolve(shared, call, &topic, remote, open.until_end).await?);
        lanes.iter_mut().for_each(|lane| lane.expected_bytes = shared.limits.batch_bytes(&topic));
        let window_bytes_max = shared.limits.push_bytes_max as u64 * FEED_WINDOW_PUSHES;
        let (feeds, events) = Feeds::new(shared.gateway.clone(), window_bytes_max, shared.load.clients.sent.clone());
        let credit = open.credit.unwrap_or_default();
        Ok((Self { shared, call, topic, batches, lanes, feeds, turn: 0, credit, client_speaks: true }, events))
    }
}

/// A reader of a partition that is at hand.
async fn reader(
    shared: &Shared,
    topic: &Topic,
    asked: &v1::PartitionPosition,
    from: Position,
    until_end: bool,
) -> Result<PartitionReader, Problem> {
    let (broker, partition) = (&shared.broker, asked.partition);
    let before = asked.stop_offset.map_or(Stop::Never, Stop::Before);
    if !until_end {
        return Ok(broker.reader(topic, partition, from, before).await?);
    }
    let reader = broker.reader(topic, partition, from, Stop::AtEnd).await?;
    match asked.stop_offset {
        Some(stop) if reader.stop().is_some_and(|end| stop < end) => {
            Ok(broker.reader(topic, partition, Position::Offset(reader.position()), before).await?)
        }
        _ => Ok(reader),
    }
}

/// Asks the other leaders what the positions stand for. An offset stands for itself; it is checked when its feed opens,
/// unless the end is needed anyway.
async fn resolve(shared: &Shared, call: Call, topic: &Topic, remote: Vec<Remote>, until_end: bool) -> Result<Vec<Lane>, Problem> {
    let mut lanes = Vec::with_capacity(remote.len());
    let mut asked: Vec<(v1::Position, Vec<Remote>)> = Vec::new();
    for remote in remote {
        let position = match (remote.from, remote.asked.position) {
            (Position::Offset(_), _) if until_end => v1::Position { at: Some(v1::position::At::Latest(v1::Latest {})) },
            (Position::Offset(offset), _) => {
                let place = (remote.asked.partition, remote.group_id);
                lanes.push(Lane::new(place, offset, remote.asked.stop_offset, 0));
                continue;
            }
            (_, position) => position.unwrap_or_default(),
        };
        match asked.iter_mut().find(|(other, _)| *other == position) {
            Some((_, together)) => together.push(remote),
            None => asked.push((position, vec![remote])),
        }
    }
    for (position, together) in asked {
        let partitions = together.iter().map(|remote| remote.asked.partition);
        let mut offsets = list_offsets(shared, call, topic, partitions, Some(position)).await?;
        offsets.sort_unstable_by_key(|listed| listed.partition);
        for remote in together {
            let found = offsets.binary_search_by_key(&remote.asked.partition, |listed| listed.partition).ok();
            if let Some(listed) = found.and_then(|index| offsets.get(index)) {
                lanes.push(lane(topic, &remote, listed, until_end)?);
            }
        }
    }
    Ok(lanes)
}

fn lane(topic: &Topic, remote: &Remote, listed: &v1::PartitionOffset, until_end: bool) -> Result<Lane, Problem> {
    let (log_start_offset, high_watermark) = (listed.log_start_offset, listed.high_watermark);
    let next = match remote.from {
        Position::Offset(offset) if offset < log_start_offset || offset > high_watermark => {
            let (topic, partition) = (topic.name.to_string(), remote.asked.partition);
            return Err(FetchError::OffsetOutOfRange { topic, partition, offset, log_start_offset, high_watermark }.into());
        }
        Position::Offset(offset) => offset,
        Position::Earliest | Position::Latest | Position::Timestamp(_) => listed.offset,
    };
    let end = until_end.then_some(high_watermark);
    let stop = remote.asked.stop_offset.into_iter().chain(end).min();
    Ok(Lane::new((remote.asked.partition, remote.group_id), next, stop, high_watermark))
}
