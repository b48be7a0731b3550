//! The frames that wait for a link. What waits goes out together, in one message; what is in no hurry waits for
//! something that is, or for the next tick.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use flotilla_proto::internal::v1::frame::Kind;
use flotilla_proto::internal::v1::link_message::Message;
use flotilla_proto::internal::v1::{Frame, Frames, Hello, LinkMessage, Probe};
use futures::Stream;

use super::wire::frame_bytes;

/// Bytes after which a message is full; a single larger frame still goes, alone.
const MESSAGE_BYTES: usize = 1 << 20;
/// Bytes that may wait: more than all appends that may be on their way. Who does not read that much is given up.
const WAITING_BYTES_MAX: usize = 96 << 20;

const _: () = assert!(WAITING_BYTES_MAX > super::link::APPEND_BYTES_MAX);

/// Whether a frame may wait for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// It goes as soon as the link is free.
    Now,
    /// It rides along with the next one, or goes with the next tick.
    Idle,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<(Frame, usize)>,
    bytes: usize,
    /// Whether what waits is to go now.
    due: bool,
    closed: bool,
    /// Whether anything went since the last tick.
    sent: bool,
    reader: Option<Waker>,
}

/// The outbox as the stream that gRPC sends: first the greeting, then what waits.
#[derive(Debug)]
pub(super) struct Outgoing {
    hello: Option<Hello>,
    outbox: Arc<Outbox>,
}

impl Outbox {
    /// Adds a frame of about `bytes`; `false` if the link is closed, or its peer reads so little that it must be.
    pub(super) fn push(&self, frame: Frame, bytes: usize, pace: Pace) -> bool {
        let mut queue = self.lock();
        if queue.closed || queue.bytes + bytes > WAITING_BYTES_MAX {
            return false;
        }
        queue.bytes += bytes;
        queue.frames.push_back((frame, bytes));
        if pace == Pace::Now {
            wake(queue);
        }
        true
    }

    /// Lets everything go that waits; if there was nothing since the last tick, a probe.
    pub(super) fn tick(&self) {
        let mut queue = self.lock();
        if queue.frames.is_empty() && !queue.sent {
            let probe = Kind::Probe(Probe {});
            let bytes = frame_bytes(&probe);
            queue.bytes += bytes;
            queue.frames.push_back((Frame { group_id: 0, request_id: 0, kind: Some(probe), to_replica: 0 }, bytes));
        }
        queue.sent = false;
        if !queue.frames.is_empty() {
            wake(queue);
        }
    }

    /// Drops what waits, and ends the stream.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.frames.clear();
        queue.bytes = 0;
        wake(queue);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut queue: MutexGuard<'_, Queue>) {
    queue.due = true;
    let reader = queue.reader.take();
    drop(queue);
    if let Some(reader) = reader {
        reader.wake();
    }
}

impl Queue {
    /// As many frames as fit in a message.
    fn take(&mut self) -> Vec<Frame> {
        let mut bytes = 0;
        let fits = |(_, frame_bytes): &&(Frame, usize)| {
            bytes += frame_bytes;
            bytes <= MESSAGE_BYTES
        };
        let count = self.frames.iter().take_while(fits).count().max(1).min(self.frames.len());
        let mut taken = Vec::with_capacity(count);
        for (frame, bytes) in self.frames.drain(..count) {
            self.bytes -= bytes;
            taken.push(frame);
        }
        self.due = !self.frames.is_empty();
        self.sent = true;
        taken
    }
}

impl Outgoing {
    pub(super) fn new(hello: Hello, outbox: Arc<Outbox>) -> Self {
        Self { hello: Some(hello), outbox }
    }
}

impl Stream for Outgoing {
    type Item = LinkMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<LinkMessage>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(LinkMessage { message: Some(Message::Hello(hello)) }));
        }
        let mut queue = self.outbox.lock();
        if queue.closed {
            return Poll::Ready(None);
        }
        if !queue.due || queue.frames.is_empty() {
            queue.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let frames = queue.take();
        Poll::Ready(Some(LinkMessage { message: Some(Message::Frames(Frames { frames })) }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use futures::{FutureExt, StreamExt};

    use super::*;

    fn frame(request_id: u64) -> Frame {
        Frame { group_id: 1, request_id, kind: Some(Kind::Cast(vec![0; 10].into())), to_replica: 0 }
    }

    fn outgoing() -> (Arc<Outbox>, Outgoing) {
        let outbox = Arc::new(Outbox::default());
        let mut outgoing = Outgoing::new(Hello::default(), outbox.clone());
        assert!(matches!(next(&mut outgoing), Some(Message::Hello(_))));
        (outbox, outgoing)
    }

    fn next(outgoing: &mut Outgoing) -> Option<Message> {
        outgoing.next().now_or_never().flatten().and_then(|message| message.message)
    }

    fn ids(outgoing: &mut Outgoing) -> Vec<u64> {
        match next(outgoing) {
            Some(Message::Frames(frames)) => frames.frames.iter().map(|frame| frame.request_id).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_in_no_hurry_rides_along_in_order() {
        let (outbox, mut outgoing) = outgoing();
        assert!(outbox.push(frame(1), 10, Pace::Idle) && outbox.push(frame(2), 10, Pace::Idle));
        assert!(next(&mut outgoing).is_none());
        assert!(outbox.push(frame(3), 10, Pace::Now) && outbox.push(frame(4), 10, Pace::Idle));
        assert_eq!(ids(&mut outgoing), [1, 2, 3, 4]);
        assert!(outbox.push(frame(5), 10, Pace::Idle));
        assert!(next(&mut outgoing).is_none());
        outbox.tick();
        assert_eq!(ids(&mut outgoing), [5]);
    }

    #[test]
    fn messages_are_cut_at_a_size_and_a_large_frame_goes_alone() {
        let (outbox, mut outgoing) = outgoing();
        for (id, bytes) in [(1, MESSAGE_BYTES / 2), (2, MESSAGE_BYTES / 2), (3, 1), (4, 5 * MESSAGE_BYTES), (5, 1)] {
            assert!(outbox.push(frame(id), bytes, Pace::Now));
        }
        assert_eq!(ids(&mut outgoing), [1, 2]);
        assert_eq!(ids(&mut outgoing), [3]);
        assert_eq!(ids(&mut outgoing), [4]);
        assert_eq!(ids(&mut outgoing), [5]);
        assert!(next(&mut outgoing).is_none());
    }

    #[test]
    fn a_probe_goes_only_when_nothing_else_did() {
        let (outbox, mut outgoing) = outgoing();
        assert!(outbox.push(frame(1), 10, Pace::Now));
        assert_eq!(ids(&mut outgoing), [1]);
        outbox.tick();
        assert!(next(&mut outgoing).is_none());
        outbox.tick();
        assert_eq!(ids(&mut outgoing), [0]);
    }

    #[test]
    fn what_waits_is_bounded_and_a_closed_outbox_takes_nothing() {
        let (outbox, mut outgoing) = outgoing();
        assert!(outbox.push(frame(1), WAITING_BYTES_MAX, Pace::Now));
        assert!(!outbox.push(frame(2), 1, Pace::Now));
        outbox.close();
        assert!(!outbox.push(frame(3), 1, Pace::Now));
        assert!(outgoing.next().now_or_never().unwrap().is_none());
    }
}
