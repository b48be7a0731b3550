//! One push stream: opened, read, and kept in credit.

use std::sync::Arc;

use flotilla_proto::v1;
use flotilla_proto::v1::consume_request::Request;
use flotilla_proto::v1::consume_response::Response;
use flotilla_proto::v1::consumer_client::ConsumerClient;
use flotilla_records::BatchHeader;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::{Client, meant_for};
use crate::error::Error;

/// Messages that may wait to be sent.
const CREDITS_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct ConsumeStream {
    client: Client,
    address: String,
    requests: mpsc::Sender<v1::ConsumeRequest>,
    responses: Streaming<v1::ConsumeResponse>,
    prefetch: v1::Credit,
    /// Received since the last credit was sent.
    used: v1::Credit,
}

impl ConsumeStream {
    /// Opens a stream within the request timeout, to the partitions' leader if one is known, otherwise to any node.
    pub fn open(
        client: Client,
        (topic, topic_id): (&str, &str),
        leader: Option<Arc<str>>,
        partitions: Vec<v1::PartitionPosition>,
        prefetch: v1::Credit,
    ) -> impl Future<Output = Result<Self, Error>> + Send + use<> {
        let open = v1::ConsumeOpen {
            topic: topic.to_owned(),
            topic_id: Some(topic_id.to_owned()),
            partitions,
            // The stop positions say it, and hold when the stream is opened again.
            until_end: false,
            encoding: v1::Encoding::Batches.into(),
            credit: Some(prefetch),
        };
        let timeout = client.options().request_timeout;
        let opening = async move {
            let connection = client.connection(leader.as_deref()).await?;
            let (requests, receiver) = mpsc::channel(CREDITS_MAX);
            // Cannot fail: the channel is empty and its receiver is here.
            let _ = requests.try_send(v1::ConsumeRequest { request: Some(Request::Open(open)) });
            let mut stub = ConsumerClient::new(connection.channel).max_decoding_message_size(client.message_bytes_max());
            let address = connection.address;
            let answer = stub.consume(meant_for(ReceiverStream::new(receiver), &address, leader.as_deref())).await;
            let responses = answer.map_err(|status| lost(&client, &address, status))?.into_inner();
            let mut stream = Self { client, address, requests, responses, prefetch, used: v1::Credit::default() };
            match stream.message().await? {
                Some(Response::Opened(_)) => Ok(stream),
                Some(_) => Err(Error::Protocol("a consume stream must begin with `opened`".to_owned())),
                None => Err(Error::ConnectionLost { reason: "the server ended the stream".to_owned() }),
            }
        };
        async move { tokio::time::timeout(timeout, opening).await.unwrap_or(Err(Error::Timeout(timeout))) }
    }

    /// The node that it goes to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next message. None at the end of the stream.
    pub async fn message(&mut self) -> Result<Option<Response>, Error> {
        let message = self.responses.message().await.map_err(|status| lost(&self.client, &self.address, status))?;
        match message {
            None => Ok(None),
            Some(v1::ConsumeResponse { response: Some(response) }) => Ok(Some(response)),
            Some(_) => Err(Error::Protocol("an empty message came; the server may be newer than this client".to_owned())),
        }
    }

    /// Gives back the credit that a push took: its size as a message, and the offsets it moved on from `position`.
    /// Where the two sides may count differently, in doubt more, so that the stream never runs dry.
    pub fn used(&mut self, records: &v1::ConsumedRecords, position: u64) -> Result<(), Error> {
        let mut in_batches = 0;
        for batch in &records.batches {
            in_batches += u64::from(BatchHeader::parse(batch)?.offset_count());
        }
        self.used.bytes += records.encoded_len() as u64;
        self.used.records += records.next_offset.saturating_sub(position).max(in_batches);
        if self.used.bytes >= self.prefetch.bytes / 2 || self.used.records >= self.prefetch.records / 2 {
            // If there is no room, enough credits are on their way; this one goes out with the next. If the stream has
            // ended, the next read says why.
            if let Ok(room) = self.requests.try_reserve() {
                room.send(v1::ConsumeRequest { request: Some(Request::Credit(std::mem::take(&mut self.used))) });
            }
        }
        Ok(())
    }
}

/// Of a connection that broke, nothing is used again.
fn lost(client: &Client, address: &str, status: tonic::Status) -> Error {
    let error = Error::of_answer(status, address);
    if matches!(error, Error::ConnectionLost { .. } | Error::NotSent { .. }) {
        client.forget_connection(address);
    }
    error
}
