//! What a benchmark found: rates, latencies and CPU time, for people and for programs.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::cpu::CpuMeter;
use crate::cli::exit::CliError;

/// What takes longer than an hour is recorded as an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// Latencies in microseconds, with three significant digits.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

/// Milliseconds at some quantiles.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// How many were measured.
    pub samples: u64,
}

impl Latencies {
    pub fn new() -> Result<Self, CliError> {
        Histogram::new_with_bounds(1, LONGEST_US, 3).map(Self).map_err(|error| CliError::Failed(error.to_string()))
    }

    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so nothing is out of range.
        let _ = self.0.add(&other.0);
    }

    pub fn quantiles(&self) -> Quantiles {
        let ms = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Quantiles {
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: self.0.max() as f64 / 1e3,
            samples: self.0.len(),
        }
    }
}

/// The result of a benchmark.
#[derive(Debug, Serialize)]
pub struct Report {
    pub bench: &'static str,
    pub topic: String,
    pub partitions: u32,
    pub records: u64,
    /// Bytes of a record's value.
    pub record_bytes: usize,
    pub seconds: f64,
    pub records_per_second: f64,
    /// Megabytes (10^6) of values.
    pub mb_per_second: f64,
    #[serde(flatten)]
    pub latency: Option<Quantiles>,
    pub client_cpu_seconds: Option<f64>,
    pub server_cpu_seconds: Option<f64>,
    /// What else belongs to the result.
    #[serde(flatten)]
    pub details: serde_json::Map<String, serde_json::Value>,
}

impl Report {
    pub fn new(bench: &'static str, topic: &super::topic::BenchTopic, records: u64, record_bytes: usize, took: Duration) -> Self {
        let seconds = took.as_secs_f64().max(1e-9);
        Self {
            bench,
            topic: topic.name.clone(),
            partitions: topic.partitions,
            records,
            record_bytes,
            seconds,
            records_per_second: records as f64 / seconds,
            mb_per_second: records as f64 * record_bytes as f64 / 1e6 / seconds,
            latency: None,
            client_cpu_seconds: None,
            server_cpu_seconds: None,
            details: serde_json::Map::new(),
        }
    }

    pub fn with_cpu(mut self, cpu: &CpuMeter) -> Self {
        self.client_cpu_seconds = cpu.client_seconds();
        self.server_cpu_seconds = cpu.server_seconds();
        self
    }

    pub fn with_latency(mut self, latencies: &Latencies) -> Self {
        self.latency = Some(latencies.quantiles());
        self
    }

    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    pub fn text(&self, _wide: bool) -> String {
        let mut text = format!(
            "{}: {} records of {} bytes in {:.2} s: {:.0} records/s, {:.1} MB/s\n",
            self.bench, self.records, self.record_bytes, self.seconds, self.records_per_second, self.mb_per_second
        );
        if let Some(latency) = &self.latency {
            let Quantiles { p50_ms, p99_ms, p999_ms, max_ms, .. } = latency;
            text += &format!("latency: p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, p99.9 {p999_ms:.2} ms, max {max_ms:.2} ms\n");
        }
        if let Some(seconds) = self.client_cpu_seconds {
            text += &format!("CPU: client {seconds:.2} s");
            text += &self.server_cpu_seconds.map(|seconds| format!(", server {seconds:.2} s")).unwrap_or_default();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut all = Latencies::new().unwrap();
        for half in [1..=500, 501..=1000] {
            let mut latencies = Latencies::new().unwrap();
            half.for_each(|ms| latencies.record(Duration::from_millis(ms)));
            all.add(&latencies);
        }
        let Quantiles { p50_ms, p99_ms, max_ms, samples, .. } = all.quantiles();
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.002;
        assert!(near(p50_ms, 500.0) && near(p99_ms, 990.0) && near(max_ms, 1000.0), "{:?}", all.quantiles());
        assert_eq!(samples, 1000);
    }
}
