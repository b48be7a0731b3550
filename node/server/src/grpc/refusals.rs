//! Gives the refusals of the transport itself our form: a request over its limit, or one that is no protobuf message,
//! never reaches a service, so tonic answers it in its own words.

use std::task::{Context, Poll};

use axum::http::{HeaderMap, Response};
use futures::future::{FutureExt, Map};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::Shared;
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

/// What it means that a stream of requests broke: the connection did, the node gave it up, or what came is no request.
pub fn broken(shared: &Shared, status: &Status) -> Problem {
    let refusals = ClearRefusals { request_bytes_max: shared.limits.request_bytes_max };
    let known = Problem::passed_on(status).or_else(|| refusals.reword(status));
    known.unwrap_or_else(|| Problem::new(Reason::InvalidRequest, status.message()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use axum::http::uri::PathAndQuery;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::Request;
    use tonic::client::Grpc;
    use tonic::transport::{Channel, Server};
    use tonic_types::StatusExt;

    use super::*;

    /// A server with the smallest service at hand, limited to requests of 10 bytes.
    async fn connect() -> Grpc<Channel> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, health) = tonic_health::server::health_reporter();
        let server = Server::builder()
            .layer(ClearRefusals { request_bytes_max: 10 })
            .add_service(health.max_decoding_message_size(10))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let mut client = Grpc::new(channel);
        client.ready().await.unwrap();
        client
    }

    async fn refusal<M: prost::Message + Default + 'static>(request: M) -> Status {
        let codec = tonic_prost::ProstCodec::<M, ()>::default();
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        connect().await.unary(Request::new(request), path, codec).await.unwrap_err()
    }

    fn reason(status: &Status) -> String {
        status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_request_over_its_limit_is_told_the_limit() {
        let status = refusal("longer than ten bytes".to_owned()).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "REQUEST_TOO_LARGE"));
        assert_eq!(status.message(), "the request has more than 10 bytes: send smaller requests");
    }

    #[tokio::test]
    async fn what_is_no_request_is_called_so() {
        let status = refusal(1u64).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    }

    #[tokio::test]
    async fn the_refusals_of_services_stay_as_they_are() {
        let status = refusal("unknown".to_owned()).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, ""));
    }
}
