//! The HTTP port: `/livez` (the process runs), `/startupz` (it has started), `/readyz` (it takes requests now) and
//! `/metrics`.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::metrics::Metrics;
use crate::net::{self, Slot, Slots};

/// A connection asks once, and has this long for question and answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 4;

/// How far the server's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Opening its data.
    Starting,
    /// Taking requests.
    Ready,
    /// Taking requests, but drained or leaving: clients do better with other nodes.
    Draining,
    /// Finishing what is in flight; nothing new is taken.
    Stopping,
}

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Pages {
    /// Where the server is in its life.
    pub phase: watch::Receiver<Phase>,
    /// Why no records can be produced at the node at present, in words; `None`: they can.
    pub impaired: watch::Receiver<Option<String>>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
}

/// Serves the pages until it is aborted, on up to `connections_max` connections: beyond, the oldest gives way.
pub async fn serve(listener: TcpListener, pages: Pages, connections_max: usize) {
    let router = router(pages);
    let slots = Arc::new(Slots::new(connections_max, 0));
    net::accept(listener, &slots, pending(), |stream, slot| answer(stream, slot, router.clone())).await;
}

async fn answer(stream: TcpStream, slot: Arc<Slot>, router: Router) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Nobody needs a date, and the clock may stand where none can be.
    builder.http1().keep_alive(false).auto_date_header(false);
    // Who takes this for the gRPC port speaks HTTP/2, and is told that there is no such page.
    builder.http2().auto_date_header(false).max_concurrent_streams(STREAMS_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        // A client that broke off needs no answer.
        _ = connection => {}
        () = tokio::time::sleep(PATIENCE) => {}
        () = slot.gave_way() => {}
    }
}

fn router(pages: Pages) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/startupz", get(|State(pages): State<Pages>| async move { check(&pages, |phase| phase >= Phase::Ready) }))
        .route("/readyz", get(|State(pages): State<Pages>| async move { ready(&pages) }))
        .route("/metrics", get(metrics))
        .with_state(pages)
}

/// Whether clients should come here: not to a node that refuses every record.
fn ready(pages: &Pages) -> (StatusCode, String) {
    let (status, text) = check(pages, |phase| phase == Phase::Ready);
    match &*pages.impaired.borrow() {
        Some(why) if status == StatusCode::OK => (StatusCode::SERVICE_UNAVAILABLE, format!("impaired: {why}\n")),
        _ => (status, text.to_owned()),
    }
}

fn check(pages: &Pages, good: fn(Phase) -> bool) -> (StatusCode, &'static str) {
    let phase = *pages.phase.borrow();
    let text = match phase {
        Phase::Starting => "starting: the node opens its data, or waits for the others of its cluster (its log says which)\n",
        Phase::Ready => "ok\n",
        Phase::Draining => "draining: the node leads nothing, until flotilla node undrain takes it back\n",
        Phase::Stopping => "stopping: the node finishes what is in flight\n",
    };
    (if good(phase) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match pages.metrics.encode() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn status(phase: Phase, path: &str) -> StatusCode {
        answer_of(phase, None, path).await.0
    }

    async fn answer_of(phase: Phase, impaired: Option<&str>, path: &str) -> (StatusCode, String) {
        let impaired = watch::channel(impaired.map(str::to_owned)).1;
        let pages = Pages { phase: watch::channel(phase).1, impaired, metrics: Arc::new(Metrics::new()) };
        let answer = router(pages).oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        let text = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8_lossy(&text).into_owned())
    }

    #[tokio::test]
    async fn a_node_that_takes_no_records_is_not_ready_and_says_why() {
        let (status, text) = answer_of(Phase::Ready, Some("the disk is full"), "/readyz").await;
        assert_eq!((status, text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "impaired: the disk is full\n"));
        assert_eq!(answer_of(Phase::Ready, Some("the disk is full"), "/livez").await.0, StatusCode::OK);
        let (_, text) = answer_of(Phase::Stopping, Some("the disk is full"), "/readyz").await;
        assert!(text.starts_with("stopping"), "{text}");
    }

    #[tokio::test]
    async fn pages_follow_the_phase() {
        const NO: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
        for (phase, live, started, ready) in [
            (Phase::Starting, StatusCode::OK, NO, NO),
            (Phase::Ready, StatusCode::OK, StatusCode::OK, StatusCode::OK),
            (Phase::Draining, StatusCode::OK, StatusCode::OK, NO),
            (Phase::Stopping, StatusCode::OK, StatusCode::OK, NO),
        ] {
            assert_eq!(status(phase, "/livez").await, live, "{phase:?}");
            assert_eq!(status(phase, "/startupz").await, started, "{phase:?}");
            assert_eq!(status(phase, "/readyz").await, ready, "{phase:?}");
            assert_eq!(status(phase, "/metrics").await, StatusCode::OK);
        }
    }
}
