//! Where a consume stream stands: its lanes, whose turn it is, and the client's credits.

use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{FetchError, Room, Topic};
use flotilla_proto::v1;
use flotilla_proto::v1::consume_request::Request as Ask;
use flotilla_proto::v1::consume_response::Response as Push;
use futures::future::select_all;
use prost::Message;
use tonic::Status;

use super::super::Shared;
use super::super::call::Call;
use super::super::consumer::{take, unless_deleted};
use super::super::forward::PAUSE;
use super::super::load::{AROUND_STREAM_BYTES, Lot, PIECE_BYTES};
use super::super::problem::{Problem, Reason};
use super::super::refusals::broken;
use super::feed::{Event, Feeds};
use super::lane::{Lane, Source};
use super::{End, Pushes, encoded, send};

/// A sleeping stream looks around this often: whether its partitions have moved, and in case that nothing wakes it.
const PATIENCE: Duration = Duration::from_millis(200);

/// See the module.
pub struct Cursor<'a> {
    pub(super) shared: &'a Shared,
    pub(super) call: Call,
    pub(super) topic: Arc<Topic>,
    pub(super) batches: bool,
    /// Partitions that have not reached their stop.
    pub(super) lanes: Vec<Lane>,
    pub(super) feeds: Feeds,
    /// Whose turn it is.
    pub(super) turn: usize,
    pub(super) credit: v1::Credit,
    /// The client may give more credit: it has not ended its side.
    pub client_speaks: bool,
}

impl Cursor<'_> {
    /// Takes what the client says next. It may end its side and still read ours.
    pub fn ask(&mut self, ask: Result<Option<v1::ConsumeRequest>, Status>) -> Result<(), End> {
        match ask.map_err(|status| broken(self.shared, &status))?.map(|ask| ask.request) {
            Some(Some(Ask::Credit(more))) => {
                self.credit.records = self.credit.records.saturating_add(more.records);
                self.credit.bytes = self.credit.bytes.saturating_add(more.bytes);
                Ok(())
            }
            Some(_) => Err(Problem::field("request", "must be `credit` once the stream is open").into()),
            None => {
                self.client_speaks = false;
                Ok(())
            }
        }
    }

    /// Takes what another node says.
    pub fn handle(&mut self, event: Event) -> Result<(), Problem> {
        match event {
            Event::Records(feed, records, lot) => {
                let lane = self.lanes.iter_mut().find(|lane| lane.partition == records.partition && lane.is_fed_by(feed));
                match lane {
                    Some(lane) => lane.fed(records, lot),
                    None => {
                        self.feeds.used(feed, lot.bytes());
                        Ok(())
                    }
                }
            }
            Event::Ended(feed, problem) => {
                self.feeds.close(feed);
                let lasting = !problem.is_passing() && problem.reason() != Reason::OutcomeUnknown;
                for lane in self.lanes.iter_mut().filter(|lane| lane.is_fed_by(feed)) {
                    if lasting {
                        return Err(problem);
                    }
                    lane.lose_source(PAUSE, Some(problem.clone()));
                }
                Ok(())
            }
        }
    }

    /// Whether nothing will ever be pushed again.
    pub fn is_done(&self) -> bool {
        self.lanes.is_empty() || !self.client_speaks && !self.has_credit()
    }

    fn has_credit(&self) -> bool {
        self.credit.records > 0 && self.credit.bytes > 0
    }

    /// Pushes from the next partition that has something, and closes lanes that reached their stop. Returns whether
    /// there was anything to do.
    pub async fn advance(&mut self, pushes: &Pushes) -> Result<bool, End> {
        for _ in 0..self.lanes.len() {
            let turn = self.turn % self.lanes.len();
            let has_credit = self.has_credit();
            let Some(lane) = self.lanes.get(turn) else { return Ok(false) };
            if lane.at_stop() {
                let end =
                    v1::PartitionEnd { partition: lane.partition, next_offset: lane.next, high_watermark: lane.high_watermark() };
                self.lanes.remove(turn);
                send(pushes, encoded(Push::PartitionEnd(end)), None).await?;
                return Ok(true);
            }
            self.turn = turn + 1;
            if has_credit && lane.has_records() {
                self.push(turn, pushes).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One batch, and one record of it, comes however large. What was larger than there was room for is read again, with room.
    async fn push(&mut self, turn: usize, pushes: &Pushes) -> Result<(), End> {
        let shared = self.shared;
        let credit_bytes = usize::try_from(self.credit.bytes).unwrap_or(usize::MAX);
        // Where bytes are short each gets little at a time: who of them does not read shows only later.
        let fair_bytes = if shared.load.clients.sent.is_half_used() { PIECE_BYTES } else { usize::MAX };
        let bytes_max = shared.limits.push_bytes_max.min(credit_bytes).min(fair_bytes);
        let Some(lane) = self.lanes.get_mut(turn) else { return Ok(()) };
        let room_bytes = bytes_max.max(lane.expected_bytes);
        let Some(mut lot) = room(shared, room_bytes as u64 + AROUND_STREAM_BYTES, pushes).await? else { return Ok(()) };
        let reading = shared.load.reading().await;
        let fetched = match lane.read(bytes_max).await {
            Ok(Some(fetched)) => fetched,
            Ok(None) => return Ok(()),
            Err(error) => return Ok(self.failed(turn, error)?),
        };
        drop(reading);
        lane.expected_bytes = fetched.bytes();
        if lane.expected_bytes > room_bytes {
            return Ok(());
        }
        let from = fetched.from;
        let room = Room { records: usize::try_from(self.credit.records).unwrap_or(usize::MAX), bytes: bytes_max };
        let taken = take(shared, (lane.partition, lane.stop), fetched, self.batches, room)?;
        lane.expected_bytes = taken.encoded_len();
        if lane.expected_bytes > room_bytes {
            return Ok(());
        }
        if let Some((feed, bytes)) = lane.pushed(taken.next_offset) {
            self.feeds.used(feed, bytes);
        }
        self.credit.records = self.credit.records.saturating_sub(taken.next_offset - from);
        self.credit.bytes = self.credit.bytes.saturating_sub(lane.expected_bytes as u64);
        let push = encoded(Push::Records(taken));
        lot.resize(push.len() as u64 + AROUND_STREAM_BYTES);
        send(pushes, push, Some(lot)).await
    }

    /// A lane could not be read here. If its partition moves, it goes on elsewhere.
    pub fn failed(&mut self, turn: usize, error: FetchError) -> Result<(), Problem> {
        let problem = unless_deleted(self.shared, &self.topic, error);
        match self.lanes.get_mut(turn) {
            Some(lane) if problem.is_passing() && !self.call.direct => {
                lane.lose_source(PAUSE, Some(problem));
                Ok(())
            }
            _ => Err(problem),
        }
    }

    /// Returns when a partition that is read here may have something that there is credit for, or cannot be read here any
    /// more: which one then, and why.
    pub async fn ready(&self) -> Option<(usize, FetchError)> {
        let has_credit = self.has_credit();
        let readers = self.lanes.iter().enumerate().filter_map(|(index, lane)| match &lane.source {
            Source::Here(reader) => Some(async move {
                // Without credit there is only one thing to wait for: that the partition closes.
                let ended = if has_credit { reader.ready(Duration::MAX).await.err() } else { Some(reader.closed().await) };
                ended.map(|error| (index, error))
            }),
            Source::Fed(_) | Source::Nowhere { .. } => None,
        });
        let readers: Vec<_> = readers.map(Box::pin).collect();
        if readers.is_empty() {
            return std::future::pending().await;
        }
        select_all(readers).await.0
    }

    /// How long the stream may sleep.
    pub fn patience(&self) -> Duration {
        let searching = self.lanes.iter().any(|lane| matches!(lane.source, Source::Nowhere { .. }));
        if searching { PAUSE } else { PATIENCE }
    }
}

/// Waits until the node may hold so many bytes more for its clients. `None`: it is stopping.
async fn room(shared: &Shared, bytes: u64, pushes: &Pushes) -> Result<Option<Lot>, End> {
    tokio::select! {
        biased;
        lot = shared.load.clients.sent.room(bytes) => Ok(Some(lot)),
        () = pushes.closed() => Err(End::Done),
        () = shared.draining.cancelled() => Ok(None),
    }
}
