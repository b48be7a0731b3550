//! The end of a run: everything reads to the end, is compared, and judged.

use std::ops::Range;

use tokio::time::timeout;

use super::{PATIENCE, Run};
use crate::checkers;
use crate::fault::{Fault, Strike};
use crate::history::{History, Micros};
use crate::report::{Pauses, Plan, Report, Struck, longest};
use crate::workload::Notes;

/// Of all writes, at least this part must have been acknowledged.
const OK_SHARE_MIN: f64 = 0.5;

impl Run {
    pub(super) async fn finish(mut self, strikes: Vec<Strike>) -> (Report, History) {
        let ended_at = self.clock.now();
        let writing = timeout(self.options.workload.delivery_timeout + PATIENCE, self.workload.stop_writing());
        if writing.await.is_err() {
            self.void_because.push("the producers did not come to an end".to_owned());
        }
        let (ends, patience) = (self.ends().await, self.read_patience());
        if let Some(ends) = ends.clone()
            && !self.workload.drain(ends, patience).await
        {
            self.void_because.push(format!("the readers were not at the end {patience:?} after the last write"));
        }
        let final_reads = self.final_reads().await;
        self.incidents.extend(self.cluster.stop().await);
        let planned = self.planned();
        let Self { options, workload, began_at, incidents, mut void_because, .. } = self;
        let mut notes = workload.finish().await;
        notes.history.final_reads = final_reads;
        void_because.extend(too_little(&notes, &strikes, planned, &options));
        let findings = checkers::check_all(&notes.history);
        let windows = windows(began_at, &strikes, ended_at);
        let mut pauses = longest(&notes.history, &windows, options.workload.partitions).into_iter();
        let calm_ms = pauses.next().unwrap_or_default();
        let strikes: Vec<Struck> = strikes
            .into_iter()
            .zip(pauses)
            .map(|(strike, [pause_ms, partition_pause_ms])| Struck { strike, pause_ms, partition_pause_ms })
            .collect();
        let report = Report {
            verdict: Report::judge(&findings, &incidents, &void_because),
            void_because,
            plan: Plan {
                seed: options.seed,
                nodes: options.cluster.nodes,
                partitions: options.workload.partitions,
                replication_factor: options.replication_factor,
                rate: options.workload.rate,
                seconds: options.duration.as_secs(),
                faults: options.faults,
                strikes: planned,
            },
            records: notes.history.counts(),
            records_read: notes.history.seen().count() as u64,
            acked_per_second: acked_per_second(&notes.history, &(began_at..ended_at)),
            leader_changes: notes.leader_changes,
            pauses: Pauses::of(strikes.iter().map(|struck| struck.pause_ms).collect()),
            partition_pauses: Pauses::of(strikes.iter().map(|struck| struck.partition_pause_ms).collect()),
            calm_ms,
            strikes,
            findings,
            incidents,
            client_errors: notes.error_count,
            client_error_examples: notes.errors,
            kept: None,
        };
        (report, notes.history)
    }
}

/// Why a run says nothing, whatever its checkers found.
fn too_little(notes: &Notes, strikes: &[Strike], planned: usize, options: &super::RunOptions) -> Vec<String> {
    let mut why = Vec::new();
    let counts = notes.history.counts();
    let all = counts.ok + counts.fail + counts.info;
    if all == 0 || (counts.ok as f64) < OK_SHARE_MIN * all as f64 {
        why.push(format!("only {} of {all} records were acknowledged", counts.ok));
    }
    if strikes.len() < planned {
        why.push(format!("{} of {planned} planned faults happened", strikes.len()));
    }
    let replicated = options.cluster.nodes > 1 && options.replication_factor > 1;
    let all_stay = |fault: &Fault| matches!(fault, Fault::AllKill | Fault::PowerCutAll | Fault::ClientsOnly);
    let moves_leaders = strikes.iter().any(|strike| !all_stay(&strike.fault));
    if replicated && moves_leaders && planned > 0 && notes.leader_changes == 0 {
        why.push("no partition was seen to have another leader than before".to_owned());
    }
    why
}

/// The time before the first fault, and each fault's time until the next.
fn windows(began_at: Micros, strikes: &[Strike], ended_at: Micros) -> Vec<Range<Micros>> {
    let starts = || [began_at].into_iter().chain(strikes.iter().map(|strike| strike.at));
    starts().zip(starts().skip(1).chain([ended_at])).map(|(start, end)| start..end).collect()
}

fn acked_per_second(history: &History, within: &Range<Micros>) -> f64 {
    let acked = history.acked().filter(|(produce, _)| produce.completed.is_some_and(|at| within.contains(&at)));
    acked.count() as f64 / ((within.end - within.start).max(1) as f64 / 1e6)
}
