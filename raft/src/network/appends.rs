//! One stream of appends to one replica, from the leader's side: many are on their way at once, bounded by their
//! number here and by their bytes over all groups of the link.

use std::collections::VecDeque;
use std::time::Duration;

use flotilla_proto::internal::v1::frame::Kind;
use futures::{Stream, StreamExt};
use openraft::base::BoxStream;
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::PollSemaphore;

use super::client::unreachable;
use super::link::{APPEND_BYTES_MAX, APPEND_UNIT_BYTES, AppendStream, LinkError, STREAM_APPENDS_MAX};
use super::outbox::Pace;
use super::peers::Peers;
use super::urgency::Urgency;
use super::wire;
use crate::log::type_config::TypeConfig;
use crate::types::{GroupId, NodeId, Replica};

/// Payload bytes of one stream that may be on their way; one append may always be.
const STREAM_BYTES_MAX: usize = 16 << 20;
/// How long a stream waits for the link before it gives up for now. openraft needs that word now and then: what is on its
/// way is not purged.
const LINK_PATIENCE: Duration = Duration::from_secs(2);

type Results = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// See the module.
pub(super) struct Appends<S> {
    group: GroupId,
    peers: Peers,
    target: Replica,
    urgency: Urgency,
    input: S,
    /// The stream, once there is a link.
    open: Option<Open>,
    is_over: bool,
}

struct Open {
    stream: AppendStream,
    room: PollSemaphore,
    /// Room of the link that appends on their way take, in their order, and their bytes.
    on_the_way: VecDeque<(OwnedSemaphorePermit, usize)>,
    bytes: usize,
    /// Waits for room.
    held: Option<(AppendEntriesRequest<TypeConfig>, usize)>,
    input_ended: bool,
    is_first: bool,
}

/// What happened next.
enum Event {
    Result(Option<Kind>),
    Input(Option<AppendEntriesRequest<TypeConfig>>),
    Room(Option<OwnedSemaphorePermit>),
}

impl<S> Appends<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    pub(super) fn new(group: GroupId, peers: Peers, target: Replica, urgency: Urgency, input: S) -> Self {
        Self { group, peers, target, urgency, input, open: None, is_over: false }
    }

    /// The results, in the order of the appends. Polling it is what sends.
    pub(super) fn into_results<'s>(self) -> BoxStream<'s, Results> {
        Box::pin(futures::stream::unfold(self, |mut appends| async move {
            let result = appends.next().await?;
            Some((result, appends))
        }))
    }

    async fn next(&mut self) -> Option<Results> {
        if self.is_over {
            return None;
        }
        let result = match self.open {
            Some(_) => self.exchange().await,
            None => match open(self.group, &self.peers, self.target).await {
                Ok(open) => {
                    self.open = Some(open);
                    self.exchange().await
                }
                // The input is not touched: it would read entries that go nowhere.
                Err(error) => Some(Err(unreachable(&error))),
            },
        };
        // After an error the stream ends: its receiver takes nothing more of it.
        self.is_over = !matches!(result, Some(Ok(Ok(_))));
        result
    }

    /// Sends until there is a result.
    async fn exchange(&mut self) -> Option<Results> {
        let open = self.open.as_mut()?;
        loop {
            if open.input_ended && open.held.is_none() && open.on_the_way.is_empty() {
                return None;
            }
            match open.event(&mut self.input).await {
                Event::Input(None) => open.input_ended = true,
                Event::Input(Some(request)) => {
                    let bytes = wire::append_bytes(&request);
                    open.held = Some((request, bytes));
                }
                Event::Room(None) | Event::Result(None) => return Some(Err(unreachable(&LinkError::Down(self.target.node)))),
                Event::Room(Some(permit)) => open.send(permit, &self.urgency),
                Event::Result(Some(kind)) => return Some(open.result(self.target.node, kind)),
            }
        }
    }
}

/// Waits for the link and begins a stream over it.
async fn open(group: GroupId, peers: &Peers, target: Replica) -> Result<Open, LinkError> {
    let linked = tokio::time::timeout(LINK_PATIENCE, peers.linked(target.node)).await;
    let link = linked.map_err(|_| LinkError::Down(target.node))?;
    let room = PollSemaphore::new(link.budget.clone());
    let stream = link.open_stream(group, target.id);
    Ok(Open { stream, room, on_the_way: VecDeque::new(), bytes: 0, held: None, input_ended: false, is_first: true })
}

impl Open {
    async fn event<S>(&mut self, input: &mut S) -> Event
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
    {
        let full = self.on_the_way.len() >= STREAM_APPENDS_MAX || self.bytes >= STREAM_BYTES_MAX;
        let wants_input = self.held.is_none() && !self.input_ended && !full;
        let units = self.held.as_ref().map(|(_, bytes)| bytes.div_ceil(APPEND_UNIT_BYTES));
        let units = units.map(|units| u32::try_from(units.min(APPEND_BYTES_MAX / APPEND_UNIT_BYTES)).unwrap_or(u32::MAX));
        let room = &mut self.room;
        tokio::select! {
            biased;
            result = self.stream.results.recv() => Event::Result(result),
            permit = std::future::poll_fn(|context| room.poll_acquire_many(context, units.unwrap_or(1))), if units.is_some() => {
                Event::Room(permit)
            }
            request = input.next(), if wants_input => Event::Input(request),
        }
    }

    fn send(&mut self, permit: OwnedSemaphorePermit, urgency: &Urgency) {
        let Some((request, bytes)) = self.held.take() else { return };
        // Without entries it only tells what is committed. The first of a stream finds out how far the replica is.
        let can_wait = request.entries.is_empty() && !self.is_first && !urgency.is_urgent();
        self.is_first = false;
        self.bytes += bytes;
        self.on_the_way.push_back((permit, bytes));
        let pace = if can_wait { Pace::Idle } else { Pace::Now };
        self.stream.send(wire::append_to_wire(self.stream.id, request), bytes, pace);
    }

    fn result(&mut self, target: NodeId, kind: Kind) -> Results {
        let Some((room, bytes)) = self.on_the_way.pop_front() else {
            return Err(unreachable(&LinkError::Malformed(target)));
        };
        drop(room);
        self.bytes -= bytes;
        match kind {
            Kind::AppendResult(result) => wire::result_from_wire(result).map_err(|error| unreachable(&error)),
            Kind::Refused(reason) => Err(unreachable(&LinkError::Refused { peer: target, reason })),
            _ => Err(unreachable(&LinkError::Malformed(target))),
        }
    }
}
