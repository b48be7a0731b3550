//! The streams of one consumer, each with the partitions that it reads. They survive that a caller stops waiting: whatever
//! is on its way is kept here.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use flotilla_proto::v1;
use flotilla_proto::v1::consume_response::Response;
use futures::FutureExt;
use futures::future::{BoxFuture, select_all};

use super::stream::ConsumeStream;
use crate::error::Error;

/// Names a stream; never used twice by a consumer.
pub(super) type LinkId = u64;
/// What happened on no stream.
pub(super) const NO_LINK: LinkId = 0;

/// What happens on a stream.
#[derive(Debug)]
pub(super) enum Event {
    /// Time to look around.
    Nothing,
    /// It is open.
    Opened,
    /// A message came.
    Push(Response),
    /// The server ended it.
    Ended,
}

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: Vec<Link>,
    last_id: LinkId,
}

struct Link {
    id: LinkId,
    /// The leader that it was opened for.
    leader: Option<Arc<str>>,
    partitions: BTreeSet<u32>,
    state: State,
}

/// The stream, also while it is being opened.
enum State {
    Opening(BoxFuture<'static, Result<ConsumeStream, Error>>),
    Open(Box<ConsumeStream>),
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Opening(_) => "opening",
            State::Open(_) => "open",
        };
        write!(f, "{} stream {} of partitions {:?} to {:?}", state, self.id, self.partitions, self.leader)
    }
}

impl Links {
    /// Takes a stream that is being opened.
    pub fn add(
        &mut self,
        leader: Option<Arc<str>>,
        partitions: BTreeSet<u32>,
        opening: BoxFuture<'static, Result<ConsumeStream, Error>>,
    ) {
        self.last_id += 1;
        self.links.push(Link { id: self.last_id, leader, partitions, state: State::Opening(opening) });
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.links.len()
    }

    /// Whether one reads this partition.
    pub fn reads(&self, partition: u32) -> bool {
        self.links.iter().any(|link| link.partitions.contains(&partition))
    }

    /// Those that are open, with their partitions and where they go.
    pub fn open(&self) -> Vec<(LinkId, BTreeSet<u32>, String)> {
        let open = self.links.iter().filter_map(|link| match &link.state {
            State::Open(stream) => Some((link.id, link.partitions.clone(), stream.address().to_owned())),
            State::Opening(_) => None,
        });
        open.collect()
    }

    /// Ends a stream; which partitions it read.
    pub fn close(&mut self, id: LinkId) -> BTreeSet<u32> {
        let closed = self.links.extract_if(.., |link| link.id == id);
        closed.flat_map(|link| link.partitions).collect()
    }

    /// Gives back the credit that a push took; see [`ConsumeStream::used`].
    pub fn used(&mut self, id: LinkId, records: &v1::ConsumedRecords, position: u64) -> Result<(), Error> {
        match self.links.iter_mut().find(|link| link.id == id).map(|link| &mut link.state) {
            Some(State::Open(stream)) => stream.used(records, position),
            Some(State::Opening(_)) | None => Ok(()),
        }
    }

    /// What happens next on any of them; all take their turn. Never returns if there are none. May be dropped: nothing is
    /// lost.
    pub async fn next(&mut self) -> (LinkId, Result<Event, Error>) {
        if self.links.is_empty() {
            return std::future::pending().await;
        }
        // Whoever was first comes last, so that one that always has something does not starve the others.
        self.links.rotate_left(1);
        select_all(self.links.iter_mut().map(|link| link.next().boxed())).await.0
    }
}

impl Link {
    async fn next(&mut self) -> (LinkId, Result<Event, Error>) {
        let event = match &mut self.state {
            State::Opening(opening) => match opening.await {
                Ok(stream) => {
                    self.state = State::Open(Box::new(stream));
                    Ok(Event::Opened)
                }
                Err(error) => Err(error),
            },
            State::Open(stream) => stream.message().await.map(|message| message.map_or(Event::Ended, Event::Push)),
        };
        (self.id, event)
    }
}
