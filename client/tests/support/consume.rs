//! The reading half of the fake server.

use flotilla_proto::v1;
use flotilla_proto::v1::consume_request::Request as Ask;
use flotilla_proto::v1::consume_response::Response as Push;
use flotilla_proto::v1::consumer_server::Consumer;
use flotilla_proto::v1::position::At;
use flotilla_records::BatchHeader;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Fake, means_another, refusal};

type Pushes = mpsc::Sender<Result<v1::ConsumeResponse, Status>>;

struct Reading {
    partition: u32,
    next: u64,
    stop: u64,
    ended: bool,
}

impl Fake {
    /// The next batch at or behind an offset, with what a push says besides.
    fn read(&self, reading: &Reading) -> Result<Option<v1::ConsumedRecords>, Status> {
        let state = self.state.lock().unwrap();
        let log = &state.logs[reading.partition as usize];
        if reading.next < log.start {
            return Err(refusal(Code::OutOfRange, "OFFSET_OUT_OF_RANGE"));
        }
        let end = |base: u64, bytes: &[u8]| base + u64::from(BatchHeader::parse(bytes).unwrap().offset_count());
        let found = log.batches.iter().find(|(base, bytes)| end(*base, bytes) > reading.next && *base < reading.stop);
        Ok(found.map(|(base, bytes)| v1::ConsumedRecords {
            partition: reading.partition,
            next_offset: end(*base, bytes).min(reading.stop),
            high_watermark: log.end,
            log_start_offset: log.start,
            records: vec![],
            batches: vec![bytes.clone()],
        }))
    }

    async fn push(&self, pushes: &Pushes, push: Push) -> bool {
        let broken = {
            let mut state = self.state.lock().unwrap();
            state.pushed_messages += 1;
            state.break_consume_at.as_ref().is_some_and(|breaks| breaks(state.pushed_messages))
        };
        let message = if broken { Err(Status::unavailable("broken")) } else { Ok(v1::ConsumeResponse { response: Some(push) }) };
        pushes.send(message).await.is_ok() && !broken
    }

    async fn serve_consume(self, open: v1::ConsumeOpen, mut asks: Streaming<v1::ConsumeRequest>, pushes: Pushes) {
        let mut appended = self.appended.subscribe();
        let mut readings: Vec<Reading> = open.partitions.iter().map(reading).collect();
        let mut credit = open.credit.unwrap_or_default();
        if !self.push(&pushes, Push::Opened(v1::ConsumeOpened { push_bytes_max: 1 << 20 })).await {
            return;
        }
        loop {
            let mut idle = true;
            for reading in &mut readings {
                if credit.records == 0 || credit.bytes == 0 || reading.ended {
                    continue;
                }
                let push = match self.read(reading) {
                    Ok(Some(records)) => {
                        let bytes = records.batches[0].len() as u64;
                        credit.bytes = credit.bytes.saturating_sub(bytes);
                        credit.records =
                            credit.records.saturating_sub(BatchHeader::parse(&records.batches[0]).unwrap().offset_count().into());
                        reading.next = records.next_offset;
                        Push::Records(records)
                    }
                    Ok(None) if reading.next >= reading.stop => {
                        reading.ended = true;
                        Push::PartitionEnd(v1::PartitionEnd {
                            partition: reading.partition,
                            next_offset: reading.next,
                            high_watermark: 0,
                        })
                    }
                    Ok(None) => continue,
                    Err(status) => {
                        let _ = pushes.send(Err(status)).await;
                        return;
                    }
                };
                idle = false;
                if !self.push(&pushes, push).await {
                    return;
                }
            }
            if idle {
                tokio::select! {
                    more = asks.message() => match more {
                        Ok(Some(v1::ConsumeRequest { request: Some(Ask::Credit(more)) })) => {
                            credit.records += more.records;
                            credit.bytes += more.bytes;
                        }
                        _ => return,
                    },
                    changed = appended.changed() => changed.unwrap(),
                }
            }
        }
    }
}

fn reading(asked: &v1::PartitionPosition) -> Reading {
    let Some(v1::Position { at: Some(At::Offset(next)) }) = asked.position else {
        panic!("the client opens at offsets");
    };
    Reading { partition: asked.partition, next, stop: asked.stop_offset.unwrap_or(u64::MAX), ended: false }
}

#[tonic::async_trait]
impl Consumer for Fake {
    type ConsumeStream = ReceiverStream<Result<v1::ConsumeResponse, Status>>;

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        Err(Status::unimplemented("the client consumes"))
    }

    async fn consume(&self, request: Request<Streaming<v1::ConsumeRequest>>) -> Result<Response<Self::ConsumeStream>, Status> {
        let mut asks = request.into_inner();
        let Some(v1::ConsumeRequest { request: Some(Ask::Open(open)) }) = asks.message().await? else {
            panic!("a stream begins with open");
        };
        if means_another(&self.state.lock().unwrap(), open.topic_id.as_deref()) {
            return Err(refusal(Code::FailedPrecondition, "TOPIC_RECREATED"));
        }
        self.state.lock().unwrap().consume_streams += 1;
        let (pushes, receiver) = mpsc::channel(4);
        tokio::spawn(self.clone().serve_consume(open, asks, pushes));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_offsets(&self, request: Request<v1::ListOffsetsRequest>) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let request = request.into_inner();
        let state = self.state.lock().unwrap();
        let listed = request.partitions.iter().map(|&partition| {
            let log = &state.logs[partition as usize];
            let offset = match request.position.unwrap().at.unwrap() {
                At::Offset(offset) => offset,
                At::Earliest(_) => log.start,
                At::Latest(_) | At::Timestamp(_) => log.end,
            };
            v1::PartitionOffset { partition, offset, timestamp: None, log_start_offset: log.start, high_watermark: log.end }
        });
        Ok(Response::new(v1::ListOffsetsResponse { offsets: listed.collect() }))
    }
}
