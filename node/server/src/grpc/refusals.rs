//! Gives the refusals of the transport itself our form: a request over its limit, or one that is no protobuf message,
//! never reaches a service, so tonic answers it in its own words.

use std::task::{Context, Poll};

use axum::http::{HeaderMap, Response};
use futures::future::{FutureExt, Map};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::problem::{Problem, Reason};

/// Wraps all services.
#[derive(Debug, Clone, Copy)]
pub struct ClearRefusals {
    /// Largest request accepted, in bytes.
    pub request_bytes_max: usize,
}

/// A service whose transport refusals are clear.
#[derive(Debug, Clone)]
pub struct Clear<S> {
    inner: S,
    limits: ClearRefusals,
}

impl<S> Layer<S> for ClearRefusals {
    type Service = Clear<S>;

    fn layer(&self, inner: S) -> Clear<S> {
        Clear { inner, limits: *self }
    }
}

impl<S, Request, Body> Service<Request> for Clear<S>
where
    S: Service<Request, Response = Response<Body>>,
    S::Future: Unpin,
    S::Error: 'static,
    Body: Default + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Map<S::Future, Box<dyn FnOnce(Result<Response<Body>, S::Error>) -> Result<Response<Body>, S::Error> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let limits = self.limits;
        self.inner.call(request).map(Box::new(move |answer| answer.map(|answer| limits.clear(answer))))
    }
}

impl ClearRefusals {
    fn clear<Body: Default>(self, answer: Response<Body>) -> Response<Body> {
        match self.problem(answer.headers()) {
            Some(problem) => Status::from(problem).into_http(),
            None => answer,
        }
    }

    /// What tonic meant, if these are headers of its own refusal.
    fn problem(self, headers: &HeaderMap) -> Option<Problem> {
        let status = Status::from_header_map(headers).filter(|status| status.details().is_empty())?;
        self.reword(&status)
    }

    /// The same for a status that a request stream ended with.
    pub fn reword(self, status: &Status) -> Option<Problem> {
        let message = status.message();
        if status.code() == Code::OutOfRange && message.contains("message length too large") {
            let max = self.request_bytes_max;
            let advice = format!("the request has more than {max} bytes: send smaller requests");
            return Some(Problem::new(Reason::RequestTooLarge, advice).with("request_bytes_max", max));
        }
        let undecodable = message.contains("failed to decode Protobuf message") || message.contains("Unexpected EOF");
        (status.code() == Code::Internal && undecodable).then(|| {
            Problem::new(Reason::InvalidRequest, format!("the request is not the protobuf message of this call: {message}"))
        })
    }
}
