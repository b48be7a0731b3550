//! What `flotilla produce` says at its end. All figures are of what was acknowledged.

use std::time::Duration;

use flotilla_client::ProducerStats;
use serde_json::{Value, json};

use crate::cli::output::count;

/// A longer time without an acknowledgement is worth a line.
const PAUSE_SHOWN_MIN: Duration = Duration::from_millis(100);

/// What became of the lines.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Lines read, that at which reading stopped included.
    pub lines: u64,
    /// Of them, refused before they were sent.
    pub refused: u64,
    /// What the producer counted of the others.
    pub stats: ProducerStats,
    /// Whether the lines were stored in the order of the input: all went to one partition.
    pub in_order: bool,
    /// From the first line to the last answer.
    pub took: Duration,
    /// The longest time in which lines waited and none was acknowledged.
    pub pause: Duration,
}

impl Report {
    /// Certainly not written.
    fn failed(&self) -> u64 {
        self.stats.failed_records + self.refused
    }

    /// Written or not; what was not waited for is among them.
    fn unknown(&self) -> u64 {
        self.lines.saturating_sub(self.stats.acked_records + self.failed())
    }

    /// Lines that were not acknowledged.
    pub fn lost(&self) -> u64 {
        self.failed() + self.unknown()
    }

    /// The line to go on with, where that can be said: the acknowledged lines are the first ones.
    fn resume_at_line(&self) -> Option<u64> {
        let first_ones = self.in_order || self.lost() == self.refused;
        (first_ones && self.unknown() == 0 && self.stats.acked_records > 0).then_some(self.stats.acked_records + 1)
    }

    fn per_second(&self, amount: f64) -> f64 {
        amount / self.took.as_secs_f64().max(1e-9)
    }

    fn megabytes(&self) -> f64 {
        self.stats.acked_payload_bytes as f64 / 1e6
    }

    /// For people. `complete`: the input was read to its end.
    pub fn text(&self, complete: bool) -> String {
        let (acked, megabytes) = (self.stats.acked_records, self.megabytes());
        let mut text = format!(
            "{} acknowledged, {megabytes:.1} MB in {:.2} s: {:.0} records/s, {:.1} MB/s\n",
            count(acked, "record"),
            self.took.as_secs_f64(),
            self.per_second(acked as f64),
            self.per_second(megabytes),
        );
        if self.pause >= PAUSE_SHOWN_MIN {
            text += &format!("longest time without an acknowledgement: {} ms\n", self.pause.as_millis());
        }
        if self.lost() > 0 {
            text += &format!("{} not written, {} with unknown outcome\n", count(self.failed(), "record"), self.unknown());
        }
        if let Some(line) = self.resume_at_line().filter(|_| !complete || self.lost() > 0) {
            text += &format!("every line before line {line} is acknowledged: go on there\n");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let (stats, acked) = (&self.stats, self.stats.acked_records);
        json!({
            "records": self.lines, "acked_records": acked, "failed_records": self.failed(),
            "unknown_records": self.unknown(), "resume_at_line": self.resume_at_line(), "bytes": stats.acked_payload_bytes,
            "sent_bytes": stats.acked_bytes, "batches": stats.acked_batches, "retried_batches": stats.retried_batches,
            "seconds": self.took.as_secs_f64(), "records_per_second": self.per_second(acked as f64),
            "mb_per_second": self.per_second(self.megabytes()), "longest_pause_ms": self.pause.as_secs_f64() * 1e3,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn report(lines: u64, acked: u64, failed: u64, refused: u64, in_order: bool) -> Report {
        let mut stats = ProducerStats::default();
        (stats.acked_records, stats.failed_records, stats.acked_payload_bytes) = (acked, failed, acked * 1_000_000);
        Report { lines, refused, stats, in_order, took: Duration::from_secs(2), pause: Duration::from_millis(99) }
    }

    #[test]
    fn figures_are_of_what_was_acknowledged_and_add_up() {
        let report = report(10, 6, 3, 0, false);
        let text = report.text(false);
        assert_eq!(
            text,
            "6 records acknowledged, 6.0 MB in 2.00 s: 3 records/s, 3.0 MB/s\n3 records not written, 1 with unknown outcome\n"
        );
        let json = report.json();
        assert_eq!((&json["records"], &json["failed_records"], &json["unknown_records"]), (&10.into(), &3.into(), &1.into()));
        assert_eq!(json["bytes"], 6_000_000);
    }

    #[test]
    fn where_to_go_on_is_said_where_it_is_known() {
        assert_eq!(report(17, 16, 0, 1, false).resume_at_line(), Some(17));
        assert_eq!(report(17, 10, 7, 0, true).resume_at_line(), Some(11));
        assert_eq!(report(17, 10, 7, 0, false).resume_at_line(), None, "the ten may be any ten");
        assert_eq!(report(17, 10, 6, 0, true).resume_at_line(), None, "one may be written or not");
        assert_eq!(report(17, 0, 17, 0, true).resume_at_line(), None, "it is where everything begins");
        assert!(report(17, 17, 0, 0, true).text(false).contains("line 18"));
        assert!(!report(17, 17, 0, 0, true).text(true).contains("line 18"));
    }
}
