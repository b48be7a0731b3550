//! Values that others own, written out when a scrape asks for them.

use std::fmt;

use flotilla_broker::Distribution;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// One scrape: each function declares a metric and gives its value.
pub struct Scrape<'a>(pub DescriptorEncoder<'a>);

impl Scrape<'_> {
    /// A value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        gauge.encode(self.0.encode_descriptor(name, help, None, gauge.metric_type())?)
    }

    /// A value that only rises.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) -> Result<(), fmt::Error> {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, None, counter.metric_type())?)
    }

    /// Values that only rise, one for each value of a label.
    pub fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: [(&str, u64); N],
    ) -> Result<(), fmt::Error> {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            encoder.encode_family(&[(label, value)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    /// How values are spread; each is counted in units of which `per_unit` make one of the metric's.
    pub fn histogram(&mut self, name: &str, help: &str, spread: &Distribution, per_unit: f64) -> Result<(), fmt::Error> {
        let upto = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 / per_unit);
        let buckets: Vec<(f64, u64)> = spread.buckets().map(|(bound, count)| (upto(bound), count)).collect();
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        encoder.encode_histogram::<NoLabelSet>(spread.sum as f64 / per_unit, spread.count(), &buckets, None)
    }
}
