//! Which entries of a group are live, and in which journal file each of them lies: a few runs, since neighbours
//! mostly share term and file.

use crate::types::LogId;

/// Consecutive live entries of one term whose newest copy lies in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) term: u64,
    /// The file's sequence.
    pub(super) file: u64,
}

/// A group's log without its content. Runs are contiguous and end at `last`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LogShape {
    last: Option<LogId>,
    runs: Vec<Run>,
}

impl LogShape {
    /// A shape as a checkpoint describes it; `None` if the runs have holes or do not end at `last`.
    pub(super) fn from_parts(last: Option<LogId>, runs: Vec<Run>) -> Option<Self> {
        let ordered = runs.iter().all(|run| run.first <= run.last);
        let contiguous = runs.iter().zip(runs.iter().skip(1)).all(|(a, b)| a.last.checked_add(1) == Some(b.first));
        let ends = runs.last().is_none_or(|run| last == Some(LogId { term: run.term, index: run.last }));
        (ordered && contiguous && ends).then_some(Self { last, runs })
    }

    /// The last entry, live or not.
    pub(super) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Whether no entry is live.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    fn run_of(&self, index: u64) -> Option<(usize, Run)> {
        let at = self.runs.partition_point(|run| run.last < index);
        self.runs.get(at).filter(|run| run.first <= index).map(|run| (at, *run))
    }

    /// The file that holds a live entry.
    pub(super) fn file_of(&self, log_id: LogId) -> Option<u64> {
        self.run_of(log_id.index).filter(|(_, run)| run.term == log_id.term).map(|(_, run)| run.file)
    }

    /// Takes entries that were written to `file`: moves those that are there, replaces those that differ (dropping
    /// everything behind), ignores those that are no longer live because segments hold them.
    pub(super) fn append(&mut self, entries: impl Iterator<Item = LogId>, file: u64) -> Result<(), String> {
        let mut expected = None;
        for entry in entries {
            let contiguous = expected.is_none_or(|expected| expected == entry.index);
            let reaches = self.last.is_none_or(|last| entry.index <= last.index.saturating_add(1));
            if !contiguous || !reaches || entry.index == u64::MAX {
                return Err(format!("entry {entry} would leave a hole in the log, whose last entry is {:?}", self.last));
            }
            expected = Some(entry.index + 1);
            self.place(entry, file);
        }
        Ok(())
    }

    fn place(&mut self, entry: LogId, file: u64) {
        match self.run_of(entry.index) {
            Some((at, run)) if run.term == entry.term => self.relocate(at, run, entry.index, file),
            Some(_) => {
                self.cut(entry.index);
                self.push(entry, file);
            }
            None if self.last.is_none_or(|last| last.index < entry.index) => self.push(entry, file),
            None => {}
        }
    }

    fn push(&mut self, entry: LogId, file: u64) {
        self.last = Some(entry);
        match self.runs.last_mut() {
            Some(run) if run.term == entry.term && run.file == file => run.last = entry.index,
            _ => self.runs.push(Run { first: entry.index, last: entry.index, term: entry.term, file }),
        }
    }

    /// Gives one entry of a run another file, and joins what fits together.
    fn relocate(&mut self, at: usize, run: Run, index: u64, file: u64) {
        if run.file == file {
            return;
        }
        let parts = [
            (run.first < index).then(|| Run { last: index - 1, ..run }),
            Some(Run { first: index, last: index, file, ..run }),
            (index < run.last).then(|| Run { first: index + 1, ..run }),
        ];
        self.runs.splice(at..=at, parts.into_iter().flatten());
        self.runs.dedup_by(|next, run| {
            let joins = run.term == next.term && run.file == next.file;
            if joins {
                run.last = next.last;
            }
            joins
        });
    }

    /// Drops live entries from `index` on.
    fn cut(&mut self, index: u64) {
        self.runs.retain_mut(|run| {
            run.last = run.last.min(index.saturating_sub(1));
            run.first < index && run.first <= run.last
        });
    }

    /// Keeps entries up to `after`, or none.
    pub(super) fn truncate(&mut self, after: Option<LogId>) {
        let behind_end = self.last.is_none_or(|last| after.is_some_and(|after| last.index <= after.index));
        if !behind_end {
            self.cut(after.map_or(0, |after| after.index + 1));
            self.last = after;
        }
    }

    /// The log ends before a live entry that cannot be read; at `floor`, what segments hold, if none is left.
    pub(super) fn end_before(&mut self, index: u64, floor: Option<LogId>) {
        self.cut(index);
        self.last = self.runs.last().map(|run| LogId { term: run.term, index: run.last }).or(floor);
    }

    /// The log starts anew behind `mark` if it does not reach beyond it.
    pub(super) fn restart_behind(&mut self, mark: LogId) {
        if self.last.is_none_or(|last| last.index < mark.index) {
            self.runs.clear();
            self.last = Some(mark);
        }
    }

    /// Entries up to `index` are no longer live.
    pub(super) fn release(&mut self, index: u64) {
        self.runs.retain_mut(|run| {
            run.first = run.first.max(index.saturating_add(1));
            run.first <= run.last
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, index }
    }

    fn shape(entries: &[(u64, u64)], file: u64) -> LogShape {
        let mut shape = LogShape::default();
        shape.append(entries.iter().map(|(term, index)| id(*term, *index)), file).unwrap();
        shape
    }

    fn runs(shape: &LogShape) -> Vec<(u64, u64, u64, u64)> {
        assert_eq!(LogShape::from_parts(shape.last, shape.runs.clone()).as_ref(), Some(shape));
        shape.runs.iter().map(|run| (run.first, run.last, run.term, run.file)).collect()
    }

    #[test]
    fn appends_extend_replace_and_move() {
        let mut log = shape(&[(1, 0), (1, 1), (1, 2), (2, 3)], 10);
        assert_eq!(runs(&log), [(0, 2, 1, 10), (3, 3, 2, 10)]);
        log.append([id(1, 1)].into_iter(), 11).unwrap();
        assert_eq!(runs(&log), [(0, 0, 1, 10), (1, 1, 1, 11), (2, 2, 1, 10), (3, 3, 2, 10)], "the same id only moves");
        log.append([id(1, 0), id(1, 1), id(1, 2)].into_iter(), 11).unwrap();
        assert_eq!(runs(&log), [(0, 2, 1, 11), (3, 3, 2, 10)]);
        log.append([id(3, 2)].into_iter(), 12).unwrap();
        assert_eq!(runs(&log), [(0, 1, 1, 11), (2, 2, 3, 12)], "another id drops what is behind");
        assert_eq!(log.last(), Some(id(3, 2)));
        assert!(log.append([id(3, 4)].into_iter(), 12).is_err(), "no holes");
        assert!(log.append([id(3, 3), id(3, 5)].into_iter(), 12).is_err());
    }

    #[test]
    fn truncate_and_release_cut_both_ends() {
        let mut log = shape(&[(1, 0), (1, 1), (1, 2), (2, 3), (2, 4)], 10);
        log.truncate(Some(id(2, 3)));
        assert_eq!((runs(&log), log.last()), (vec![(0, 2, 1, 10), (3, 3, 2, 10)], Some(id(2, 3))));
        log.release(1);
        assert_eq!(runs(&log), [(2, 2, 1, 10), (3, 3, 2, 10)]);
        log.append([id(1, 0), id(1, 1)].into_iter(), 11).unwrap();
        assert_eq!(runs(&log), [(2, 2, 1, 10), (3, 3, 2, 10)], "what segments hold stays there");
        assert_eq!(log.file_of(id(1, 2)), Some(10));
        assert_eq!(log.file_of(id(2, 2)), None);
        log.release(3);
        assert!(log.is_empty() && log.last() == Some(id(2, 3)));
        log.append([id(2, 4)].into_iter(), 11).unwrap();
        log.restart_behind(id(2, 3));
        assert_eq!(runs(&log), [(4, 4, 2, 11)]);
        log.restart_behind(id(2, 9));
        assert!(log.is_empty() && log.last() == Some(id(2, 9)));
        let mut log = shape(&[(1, 0), (1, 1)], 10);
        log.truncate(None);
        assert_eq!(log, LogShape::default());
    }
}
