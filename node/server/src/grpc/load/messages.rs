//! The body of an answer that is a stream of messages which are encoded already. tonic encodes all messages of a stream into one
//! buffer, which keeps the memory that the largest of them took for as long as the stream lives, read or not: whatever is
//! counted must be in memory of its own, which goes when it is sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;

/// Takes the place of the body that tonic made of an answer. Goes with the answer, as an extension of it.
#[derive(Debug, Clone)]
pub struct Messages(Arc<Mutex<Option<Body>>>);

struct Streamed<S> {
    /// Gone at the end.
    messages: Option<Pin<Box<S>>>,
}

impl Messages {
    /// Of messages as they are sent ([`super::framed`]); an error ends the call.
    pub fn of(messages: impl Stream<Item = Result<Bytes, Status>> + Send + 'static) -> Self {
        let body = Body::new(Streamed { messages: Some(Box::pin(messages)) });
        Self(Arc::new(Mutex::new(Some(body))))
    }

    /// The body; once.
    pub fn into_body(self) -> Body {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }
}

impl<S: Stream<Item = Result<Bytes, Status>>> HttpBody for Streamed<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(messages) = self.messages.as_mut() else { return Poll::Ready(None) };
        let status = match ready!(messages.poll_next_unpin(context)) {
            Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.messages = None;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(status)))))
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_none()
    }
}

/// What a call ends with whose answer has begun.
pub fn trailers(status: Status) -> HeaderMap {
    let mut trailers = status.into_http::<Body>().into_parts().0.headers;
    trailers.remove(CONTENT_TYPE);
    trailers
}
