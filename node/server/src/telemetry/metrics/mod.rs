//! Every metric of the server, declared once with name and help, and the typed functions that count.
//!
//! Names follow Prometheus: `flotilla_` in front, the unit behind, `_total` on counters. The values of objects that
//! others own (partitions, memory) are read when a scrape asks for them, not kept twice.

mod broker;
mod process;
mod scrape;

use std::fmt;
use std::time::Duration;

use flotilla_broker::Broker;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Code;

use broker::Watched;
use process::Process;

/// A unary or streaming method and how a call of it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

type Histograms = Family<Method, Histogram, fn() -> Histogram>;

/// The server's counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Family<Call, Counter>,
    call_seconds: Histograms,
    streams: Family<Method, Gauge>,
    produced_batches: Counter,
    produced_records: Counter,
    produced_bytes: Counter,
    produce_failures: Counter,
    produce_seconds: Histogram,
    fetched_batches: Counter,
    fetched_bytes: Counter,
    disk_free_bytes: Gauge,
    disk_full: Gauge,
    broker: Watched,
    in_flight: TaskTracker,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("flotilla");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the server", version);
        registry.register_collector(Box::new(Process));
        let broker = Watched::default();
        registry.register_collector(Box::new(broker.clone()));
        let r = &mut registry;
        let calls = declare(r, "calls", "Calls answered, by method and status code", Family::default());
        let call_seconds = Histograms::new_with_constructor(latency);
        let call_seconds = declare(r, "call_seconds", "Time until a unary call was answered", call_seconds);
        let streams = declare(r, "streams", "Streams open now, by method", Family::default());
        let produced_batches =
            declare(r, "produced_batches", "Batches acknowledged: on the disks of a majority", Counter::default());
        let produced_records =
            declare(r, "produced_records", "Records acknowledged: on the disks of a majority", Counter::default());
        let produced_bytes = declare(r, "produced_bytes", "Bytes of acknowledged batches, as sent", Counter::default());
        let produce_failures = declare(r, "produce_failures", "Batches refused or failed", Counter::default());
        let produce_seconds = declare(r, "produce_seconds", "Time from a batch's arrival to its acknowledgement", latency());
        let fetched_batches = declare(r, "fetched_batches", "Batches sent to consumers", Counter::default());
        let fetched_bytes = declare(r, "fetched_bytes", "Bytes of batches sent to consumers, as stored", Counter::default());
        let disk_free_bytes = declare(r, "disk_free_bytes", "Free space of the disk that holds the data", Gauge::default());
        let full = "1 while nothing can be produced here because the disk is nearly full";
        let disk_full = declare(r, "disk_full", full, Gauge::default());
        Self {
            registry,
            calls,
            call_seconds,
            streams,
            produced_batches,
            produced_records,
            produced_bytes,
            produce_failures,
            produce_seconds,
            fetched_batches,
            fetched_bytes,
            disk_free_bytes,
            disk_full,
            broker,
            in_flight: TaskTracker::new(),
        }
    }

    /// From now on the figures of this broker are shown, too.
    pub fn watch(&self, broker: Broker) {
        // A second broker in one life of the metrics does not happen.
        let _ = self.broker.0.set(broker);
    }

    /// A unary call was answered.
    pub fn called(&self, method: &'static str, code: Code, took: Duration) {
        self.calls.get_or_create(&Call { method, code: name_of(code) }).inc();
        self.call_seconds.get_or_create(&Method { method }).observe(took.as_secs_f64());
    }

    /// A stream was opened; it is counted as open until the guard is dropped.
    pub fn stream_opened(&self, method: &'static str) -> OpenStream {
        let open = self.streams.get_or_create_owned(&Method { method });
        open.inc();
        OpenStream { open, _in_flight: self.in_flight.token() }
    }

    /// A unary call is being answered until the token is dropped.
    pub fn call_began(&self) -> TaskTrackerToken {
        self.in_flight.token()
    }

    /// Returns when no client's call is being answered and no client's stream is open.
    pub async fn idle(&self) {
        self.in_flight.close();
        self.in_flight.wait().await;
    }

    /// A batch was acknowledged.
    pub fn produced(&self, records: u64, bytes: u64, took: Duration) {
        self.produced_batches.inc();
        self.produced_records.inc_by(records);
        self.produced_bytes.inc_by(bytes);
        self.produce_seconds.observe(took.as_secs_f64());
    }

    /// A batch was refused or failed.
    pub fn produce_failed(&self) {
        self.produce_failures.inc();
    }

    /// Batches go out to a consumer.
    pub fn fetched(&self, batches: u64, bytes: u64) {
        self.fetched_batches.inc_by(batches);
        self.fetched_bytes.inc_by(bytes);
    }

    /// How much of the disk is free, and whether that is too little.
    pub fn disk(&self, free_bytes: u64, full: bool) {
        self.disk_free_bytes.set(i64::try_from(free_bytes).unwrap_or(i64::MAX));
        self.disk_full.set(i64::from(full));
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// Only if a collector fails.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Counts a stream as open while it lives.
#[derive(Debug)]
pub struct OpenStream {
    open: Gauge,
    _in_flight: TaskTrackerToken,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.open.dec();
    }
}

fn declare<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// 0.1 ms to 26 s.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 19))
}

fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_scrape_shows_what_was_counted() {
        let metrics = Metrics::new();
        metrics.called("Produce", Code::NotFound, Duration::from_millis(1));
        metrics.produced(3, 100, Duration::from_millis(2));
        let stream = metrics.stream_opened("Consume");
        let text = metrics.encode().unwrap();
        assert!(text.contains("flotilla_calls_total{method=\"Produce\",code=\"NOT_FOUND\"} 1"), "{text}");
        assert!(text.contains("flotilla_produced_records_total 3"), "{text}");
        assert!(text.contains("flotilla_streams{method=\"Consume\"} 1"), "{text}");
        drop(stream);
        assert!(metrics.encode().unwrap().contains("flotilla_streams{method=\"Consume\"} 0"));
    }

    #[test]
    fn every_metric_has_help() {
        let text = Metrics::new().encode().unwrap();
        let helps = text.lines().filter(|line| line.starts_with("# HELP ")).count();
        assert_eq!(helps, text.lines().filter(|line| line.starts_with("# TYPE ")).count());
        assert!(helps >= 10, "{text}");
    }
}
