//! A consume stream: pushes what the partitions have, as far as the client's credits go.
//!
//! Nothing is read before there is credit for it and the connection took what was read before, so a client that does
//! not read costs the memory of a few pushes, whatever it granted.

use std::time::Duration;

use flotilla_broker::{FetchError, PartitionReader, Position, Room, Stop};
use flotilla_proto::v1;
use flotilla_proto::v1::consume_request::Request as Ask;
use flotilla_proto::v1::consume_response::Response as Push;
use futures::future::select_all;
use futures::{FutureExt, Stream};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::consumer::{position, take, unless_deleted};
use super::problem::{Problem, Reason};
use super::refusals::ClearRefusals;
use super::{Shared, convert};

/// Pushes that wait for the connection.
const PUSHES_QUEUED_MAX: usize = 2;
/// A sleeping stream looks around this often, in case that nothing wakes it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Partitions that one stream may read.
const PARTITIONS_MAX: usize = 10_000;

type Pushes = mpsc::Sender<Result<v1::ConsumeResponse, Status>>;

/// Why a stream ends before the client ends it.
enum End {
    /// Everything asked for was sent, or the client is gone.
    Done,
    Failed(Problem),
}

impl From<Problem> for End {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

/// Serves the stream in a task of its own, and returns its pushes.
pub fn open(
    shared: Shared,
    asks: Streaming<v1::ConsumeRequest>,
) -> impl Stream<Item = Result<v1::ConsumeResponse, Status>> + Send {
    let (pushes, stream) = mpsc::channel(PUSHES_QUEUED_MAX);
    tokio::spawn(async move {
        let _open = shared.metrics.stream_opened("Consume");
        if let Err(End::Failed(problem)) = serve(&shared, asks, &pushes).await {
            // A client that does not read needs no reason.
            let _ = pushes.send_timeout(Err(problem.into()), Duration::from_secs(1)).await;
        }
    });
    ReceiverStream::new(stream)
}

async fn serve(shared: &Shared, mut asks: Streaming<v1::ConsumeRequest>, pushes: &Pushes) -> Result<(), End> {
    let ask = tokio::select! {
        ask = asks.message() => ask.map_err(|status| broken(shared, &status))?.ok_or(End::Done)?,
        () = shared.draining.cancelled() => return Err(End::Done),
        () = pushes.closed() => return Err(End::Done),
    };
    let Some(Ask::Open(open)) = ask.request else {
        return Err(Problem::field("request", "must be `open` at first: it names topic and partitions").into());
    };
    let mut cursor = Cursor::open(shared, open).await?;
    let push_bytes_max = shared.limits.push_bytes_max as u64;
    send(pushes, Push::Opened(v1::ConsumeOpened { push_bytes_max })).await?;
    loop {
        // Credits that have come meanwhile count before the next look at what there is to push.
        while cursor.client_speaks
            && let Some(ask) = asks.message().now_or_never()
        {
            cursor.ask(shared, ask)?;
        }
        if shared.draining.is_cancelled() {
            return send(pushes, Push::Drain(v1::Drain {})).await;
        }
        if cursor.advance(shared, pushes).await? {
            continue;
        }
        if cursor.is_done() {
            return Ok(());
        }
        tokio::select! {
            ask = asks.message(), if cursor.client_speaks => cursor.ask(shared, ask)?,
            ready = cursor.ready() => ready.map_err(|error| unless_deleted(shared, &cursor.topic, error))?,
            () = shared.draining.cancelled() => {}
            () = pushes.closed() => return Err(End::Done),
        }
    }
}

/// Where a stream stands.
struct Cursor {
    topic: String,
    batches: bool,
    /// Partitions that have not reached their stop.
    lanes: Vec<PartitionReader>,
    /// Whose turn it is.
    turn: usize,
    credit: v1::Credit,
    /// The client may give more credit: it has not ended its side.
    client_speaks: bool,
}

impl Cursor {
    async fn open(shared: &Shared, open: v1::ConsumeOpen) -> Result<Self, Problem> {
        if open.partitions.is_empty() || open.partitions.len() > PARTITIONS_MAX {
            return Err(Problem::field("open.partitions", format!("must name 1 to {PARTITIONS_MAX} partitions")));
        }
        let batches = convert::wants_batches(open.encoding)?;
        let mut lanes = Vec::with_capacity(open.partitions.len());
        for from in open.partitions {
            if lanes.iter().any(|lane: &PartitionReader| lane.partition() == from.partition) {
                return Err(Problem::field("open.partitions", format!("names partition {} twice", from.partition)));
            }
            lanes.push(lane(shared, &open.topic, from, open.until_end).await?);
        }
        Ok(Self { topic: open.topic, batches, lanes, turn: 0, credit: open.credit.unwrap_or_default(), client_speaks: true })
    }

    /// Takes what the client says next. It may end its side and still read ours.
    fn ask(&mut self, shared: &Shared, ask: Result<Option<v1::ConsumeRequest>, Status>) -> Result<(), End> {
        match ask.map_err(|status| broken(shared, &status))?.map(|ask| ask.request) {
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

    /// Whether nothing will ever be pushed again.
    fn is_done(&self) -> bool {
        self.lanes.is_empty() || !self.client_speaks && !self.has_credit()
    }

    fn has_credit(&self) -> bool {
        self.credit.records > 0 && self.credit.bytes > 0
    }

    /// Pushes from the next partition that has something, and closes lanes that reached their stop. Returns whether
    /// there was anything to do.
    async fn advance(&mut self, shared: &Shared, pushes: &Pushes) -> Result<bool, End> {
        for _ in 0..self.lanes.len() {
            let turn = self.turn % self.lanes.len();
            let has_credit = self.has_credit();
            let Some(lane) = self.lanes.get_mut(turn) else { return Ok(false) };
            if lane.at_stop() {
                let end = v1::PartitionEnd {
                    partition: lane.partition(),
                    next_offset: lane.position(),
                    high_watermark: lane.ends().high_watermark,
                };
                self.lanes.remove(turn);
                send(pushes, Push::PartitionEnd(end)).await?;
                return Ok(true);
            }
            self.turn = turn + 1;
            if has_credit && lane.position() < lane.ends().high_watermark {
                self.push(shared, turn, pushes).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn push(&mut self, shared: &Shared, turn: usize, pushes: &Pushes) -> Result<(), End> {
        let Some(lane) = self.lanes.get_mut(turn) else { return Ok(()) };
        let bytes_max = shared.limits.push_bytes_max.min(usize::try_from(self.credit.bytes).unwrap_or(usize::MAX));
        let fetched = lane.read(bytes_max).await;
        let fetched = fetched.map_err(|error| unless_deleted(shared, &self.topic, error))?;
        let from = fetched.from;
        let room = Room { records: usize::try_from(self.credit.records).unwrap_or(usize::MAX), bytes: bytes_max };
        let taken = take(shared, lane, fetched, self.batches, room)?;
        self.credit.records = self.credit.records.saturating_sub(taken.next_offset - from);
        self.credit.bytes = self.credit.bytes.saturating_sub(taken.encoded_len() as u64);
        send(pushes, Push::Records(taken)).await
    }

    /// Returns when a partition may have something that there is credit for, or is closing.
    async fn ready(&self) -> Result<(), FetchError> {
        if !self.has_credit() {
            let lanes = self.lanes.iter().map(|lane| Box::pin(lane.closed()));
            return Err(select_all(lanes).await.0);
        }
        let lanes = self.lanes.iter().map(|lane| Box::pin(lane.ready(PATIENCE)));
        select_all(lanes).await.0
    }
}

async fn lane(shared: &Shared, topic: &str, from: v1::PartitionPosition, until_end: bool) -> Result<PartitionReader, Problem> {
    let position = position(from.position)?;
    let broker = &shared.broker;
    let before = from.stop_offset.map_or(Stop::Never, Stop::Before);
    if !until_end {
        return Ok(broker.reader(topic, from.partition, position, before).await?);
    }
    let lane = broker.reader(topic, from.partition, position, Stop::AtEnd).await?;
    match from.stop_offset {
        Some(stop) if lane.stop().is_some_and(|end| stop < end) => {
            Ok(broker.reader(topic, from.partition, Position::Offset(lane.position()), before).await?)
        }
        _ => Ok(lane),
    }
}

async fn send(pushes: &Pushes, response: Push) -> Result<(), End> {
    pushes.send(Ok(v1::ConsumeResponse { response: Some(response) })).await.map_err(|_| End::Done)
}

/// The connection broke, or what came is no request.
fn broken(shared: &Shared, status: &Status) -> Problem {
    let refusals = ClearRefusals { request_bytes_max: shared.limits.request_bytes_max };
    refusals.reword(status).unwrap_or_else(|| Problem::new(Reason::InvalidRequest, status.message()))
}
