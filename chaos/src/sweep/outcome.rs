//! What came of a sweep: a line of JSON for each point, and a table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::phase::Phase;
use super::point::Point;

/// What came of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything held.
    Pass,
    /// Something did not.
    Fail,
    /// The harm did not come about: it says nothing.
    Void,
}

/// A point that was tried.
#[derive(Debug, Clone, Serialize)]
pub struct Tried {
    /// Its name.
    pub point: String,
    /// What came of it.
    pub verdict: Verdict,
    /// The file that was met.
    pub file: Option<String>,
    /// Records acknowledged.
    pub acked: u64,
    /// How long the trial took.
    pub seconds: f64,
    /// What did not hold, or why nothing came about.
    pub words: Vec<String>,
    #[serde(skip)]
    pub(super) phase: Phase,
}

impl Tried {
    pub(super) fn new(point: &Point) -> Self {
        let (point, phase) = (point.to_string(), point.phase);
        Self { point, verdict: Verdict::Void, file: None, acked: 0, seconds: 0.0, words: Vec::new(), phase }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// Points that there are.
    pub points: usize,
    /// Those that were tried.
    pub tried: Vec<Tried>,
    /// What this machine cannot do.
    pub skipped: Vec<String>,
}

impl Summary {
    /// How many ended so.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.tried.iter().filter(|tried| tried.verdict == verdict).count()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut phases: BTreeMap<Phase, [usize; 3]> = BTreeMap::new();
        for tried in &self.tried {
            let [pass, fail, void] = phases.entry(tried.phase).or_default();
            *match tried.verdict {
                Verdict::Pass => pass,
                Verdict::Fail => fail,
                Verdict::Void => void,
            } += 1;
        }
        let mut text = format!("{:<20} {:>6} {:>6} {:>6}\n", "phase", "pass", "FAIL", "void");
        for (phase, [pass, fail, void]) in &phases {
            let _ = writeln!(text, "{:<20} {pass:>6} {fail:>6} {void:>6}", phase.to_string());
        }
        let all = [Verdict::Pass, Verdict::Fail, Verdict::Void].map(|verdict| self.count(verdict));
        let _ = writeln!(text, "{:<20} {:>6} {:>6} {:>6}   of {} points", "all", all[0], all[1], all[2], self.points);
        for tried in self.tried.iter().filter(|tried| tried.verdict == Verdict::Fail) {
            let _ = writeln!(text, "\n{}", tried.point);
            for words in &tried.words {
                let _ = writeln!(text, "  {words}");
            }
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "skipped: {skipped}");
        }
        text
    }
}
