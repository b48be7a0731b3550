//! How long nothing was acknowledged.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

use super::ms;
use crate::history::{History, Micros};

/// Pauses of several faults.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pauses {
    /// How many.
    pub count: usize,
    /// The middle one, in milliseconds.
    pub median_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
    /// All, in the order of the faults, in milliseconds.
    pub list_ms: Vec<f64>,
}

impl Pauses {
    /// Sums up.
    #[must_use]
    pub fn of(list_ms: Vec<f64>) -> Self {
        let mut sorted = list_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        // Of an even number, the upper middle: never the kinder one.
        Self { count: sorted.len(), median_ms: at(sorted.len() / 2), max_ms: at(sorted.len().saturating_sub(1)), list_ms }
    }
}

/// The longest pauses within each window, in milliseconds: without any acknowledgement, and of the partition with the
/// longest. A pause counts from the last acknowledgement before the window on, and for as long as it lies in the window.
#[must_use]
pub fn longest(history: &History, windows: &[Range<Micros>], partitions: u32) -> Vec<[f64; 2]> {
    let mut all = Vec::new();
    // A partition without any acknowledgement pauses all the time.
    let mut each: BTreeMap<u32, Vec<Micros>> = (0..partitions).map(|partition| (partition, Vec::new())).collect();
    for (produce, _) in history.acked() {
        let Some(at) = produce.completed else { continue };
        all.push(at);
        each.entry(produce.partition).or_default().push(at);
    }
    all.sort_unstable();
    each.values_mut().for_each(|times| times.sort_unstable());
    let of_window = |window: &Range<Micros>| {
        let worst = each.values().map(|times| longest_in(times, window)).max().unwrap_or_default();
        [ms(longest_in(&all, window)), ms(worst)]
    };
    windows.iter().map(of_window).collect()
}

fn longest_in(times: &[Micros], window: &Range<Micros>) -> Micros {
    let first = times.partition_point(|at| *at < window.start);
    let end = times.partition_point(|at| *at < window.end);
    let mut last = first.checked_sub(1).and_then(|before| times.get(before)).copied().unwrap_or(window.start);
    let mut longest = 0;
    for at in times.get(first..end).unwrap_or_default().iter().copied().chain([window.end]) {
        longest = longest.max(at.saturating_sub(last));
        last = at;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_is_found() {
        let times = [10, 20, 30, 100, 110];
        assert_eq!(longest_in(&times, &(25..120)), 70);
        assert_eq!(longest_in(&times, &(35..120)), 70, "from the last acknowledgement before the fault on");
        assert_eq!(longest_in(&times, &(100..200)), 90, "also if it does not end in the window");
        assert_eq!(longest_in(&times, &(35..80)), 50);
        assert_eq!(longest_in(&[], &(5..80)), 75);
        assert_eq!(longest_in(&times, &(0..25)), 10);
    }

    #[test]
    fn the_middle_and_the_end() {
        let pauses = Pauses::of(vec![3.0, 1.0, 9.0, 4.0]);
        assert_eq!((pauses.count, pauses.median_ms, pauses.max_ms), (4, 4.0, 9.0));
        assert_eq!(pauses.list_ms, [3.0, 1.0, 9.0, 4.0]);
        assert_eq!(Pauses::of(Vec::new()).max_ms, 0.0);
    }
}
