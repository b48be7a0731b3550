//! What the cluster says of itself, and whether that is true.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::ledger::At;

/// An answer takes this long at most; later it is none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between a failure and its report there may be this much: a look is not a moment.
const REPORT_DELAY_MAX: Duration = Duration::from_secs(3);

/// An answer of `flotilla cluster health`.
#[derive(Debug, Clone)]
pub(super) struct Health {
    /// By the exit code.
    pub healthy: bool,
    /// Its words.
    pub said: String,
}

/// Asks the node at `address`, by the command that people use.
pub(super) async fn ask(binary: &Path, address: &str) -> Health {
    let mut command = Command::new(binary);
    command.args(["cluster", "health", "--addr", address]).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let failed = |said: String| Health { healthy: false, said };
    match timeout(ANSWER_TIMEOUT, command.output()).await {
        Ok(Ok(output)) => {
            let text = [output.stdout, output.stderr].concat();
            Health { healthy: output.status.success(), said: String::from_utf8_lossy(&text).trim().replace('\n', "; ") }
        }
        Ok(Err(error)) => failed(format!("it could not be asked: {error}")),
        Err(_) => failed(format!("no answer within {ANSWER_TIMEOUT:?}")),
    }
}

/// One look: health was asked, every partition was written to, and health was asked again.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub at: Instant,
    pub before: Health,
    pub after: Health,
    /// Partitions that took no record, and why.
    pub down: BTreeMap<At, String>,
}

impl Look {
    pub fn is_good(&self) -> bool {
        self.down.is_empty() && self.after.healthy
    }
}

/// Compares one look with the next.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// Since when each partition has been down while the cluster was called healthy.
    suspects: BTreeMap<At, Instant>,
    lies: BTreeMap<At, String>,
}

impl Truth {
    /// Notes a look. Called healthy before and after, and down all the while for longer than a report takes: a lie.
    pub fn note(&mut self, look: &Look) {
        if !(look.before.healthy && look.after.healthy) {
            self.suspects.clear();
            return;
        }
        self.suspects.retain(|at, _| look.down.contains_key(at));
        for (at, why) in &look.down {
            let since = *self.suspects.entry(at.clone()).or_insert(look.at);
            if look.at - since >= REPORT_DELAY_MAX {
                let (topic, partition) = at;
                let said = &look.after.said;
                let lie = format!("health says {said:?} while partition {partition} of {topic} takes no records: {why}");
                self.lies.entry(at.clone()).or_insert(lie);
            }
        }
    }

    /// What was not true.
    pub fn lies(self) -> Vec<String> {
        self.lies.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, healthy: bool, down: &[u32]) -> Look {
        let health = Health { healthy, said: "words".to_owned() };
        let down = down.iter().map(|partition| (("t".to_owned(), *partition), "why".to_owned())).collect();
        Look { at, before: health.clone(), after: health, down }
    }

    #[test]
    fn healthy_while_a_partition_is_down_is_a_lie_once_it_could_be_known() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut truth = Truth::default();
        truth.note(&look(began, true, &[1, 2]));
        truth.note(&look(after(2), true, &[1]));
        truth.note(&look(after(4), true, &[1, 2]));
        assert_eq!(truth.lies.len(), 1, "partition 2 served meanwhile");
        truth.note(&look(after(5), false, &[2]));
        truth.note(&look(after(8), true, &[2]));
        assert_eq!(truth.lies().len(), 1, "it was said of partition 2");
    }
}
