//! After the harm: the disk is good, so the node must become good without anybody's help; what was acknowledged is there;
//! what was asked for can be had; a restart changes nothing; and health told the truth all the while.

use std::time::Duration;

use flotilla_client::Code;
use tokio::time::Instant;

use super::SweepError;
use super::health::Truth;
use super::ledger::Load;
use super::phase::Phase;
use super::trial::{CREATED, Trial, delete_records};
use crate::cluster::Node;
use crate::trap::order::{Fired, Harm};
use crate::workload::topic;

/// A topic that has nothing to do with what happened. Metadata that changes makes a node look at all that it hosts.
const UNRELATED: &str = "unrelated";
const POLL_INTERVAL: Duration = Duration::from_millis(200);
const FIRST: Load = Load { records: 1, bytes: 100, patience: Duration::from_secs(10) };
/// Records of the topic that passes which stay in the end: fewer than one segment holds.
const LEFT: u32 = 4;

impl Trial<'_> {
    /// What is wrong after the phase was gone through.
    pub async fn aftermath(&mut self, fired: Option<&Fired>) -> Result<Vec<String>, SweepError> {
        let mut wrong = Vec::new();
        match fired {
            Some(fired) => wrong.extend(self.start_again(fired).await?),
            None if self.phase == Phase::Stop => self.node(self.phase.victim())?.start().map_err(cannot_start)?,
            None => {}
        }
        self.created().await;
        let mut truth = Truth::default();
        wrong.extend(self.becomes_good("after the harm", &mut truth).await);
        wrong.extend(self.finish_work().await);
        wrong.extend(self.change_metadata().await);
        wrong.extend(self.becomes_good("after metadata changed", &mut truth).await);
        let address = self.address();
        wrong.extend(self.ledger.read(&address, "before the restart").await);
        wrong.extend(self.restart().await?);
        wrong.extend(self.becomes_good("after a restart", &mut truth).await);
        wrong.extend(self.ledger.read(&address, "after the restart").await);
        if self.phase == Phase::Delete {
            wrong.extend(self.leftovers().iter().map(|dir| format!("a restart later, {} is still there", dir.display())));
        }
        wrong.extend(truth.lies());
        Ok(wrong)
    }

    /// Starts what has ended, where it may have.
    async fn start_again(&mut self, fired: &Fired) -> Result<Vec<String>, SweepError> {
        let (phase, patience) = (self.phase, self.setup.stage.options.patience);
        let node = self.node(phase.victim())?;
        let Some(status) = node.ended() else { return Ok(Vec::new()) };
        let mut wrong = Vec::new();
        let may_end = phase.starts() || phase == Phase::Stop;
        let ended = || format!("it ended with {status}; its log ends so:\n{}", node.log_tail());
        if fired.step.harm != Harm::Kill
            && !(may_end && (says_why(&node.log(), &fired.path) || phase == Phase::Stop && status.success()))
        {
            wrong.push(ended());
        }
        let started = node.start();
        started.map_err(cannot_start)?;
        if !node.wait_ready_or_ended(patience).await.unwrap_or(true) {
            wrong.push(format!("on a good disk it does not start again; its log ends so:\n{}", node.log_tail()));
        }
        Ok(wrong)
    }

    /// A topic whose creation nobody heard of need not exist.
    async fn created(&mut self) {
        if self.phase != Phase::Create {
            return;
        }
        if let Ok(client) = self.client().await
            && topic::describe(&client, CREATED).await.is_err_and(|error| error.code() == Code::NotFound)
        {
            // If it is refused, that shows where it is written to.
            let _ = self.ask(Phase::Create, &client).await;
        }
    }

    /// Waits until all partitions take records and health is well.
    async fn becomes_good(&mut self, when: &str, truth: &mut Truth) -> Vec<String> {
        let (began, patience) = (Instant::now(), self.setup.stage.options.patience);
        loop {
            let look = self.look().await;
            truth.note(&look);
            if look.is_good() {
                return Vec::new();
            }
            if began.elapsed() > patience {
                let mut wrong = vec![format!("{when}, on a good disk, it is not well within {patience:?}: {}", look.after.said)];
                wrong.extend(look.down.iter().map(|((topic, number), why)| format!("partition {number} of {topic}: {why}")));
                if look.after.said.contains("must be online") && look.after.said == look.before.said && self.all_run() {
                    wrong.push(format!("every node runs, and health says {:?}", look.after.said));
                }
                return vec![wrong.join("; ")];
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn all_run(&self) -> bool {
        self.cluster.nodes().iter().all(Node::runs)
    }

    /// What the phase is about is asked for once more, and must come about now.
    async fn finish_work(&mut self) -> Vec<String> {
        let (phase, began, patience) = (self.phase, Instant::now(), self.setup.stage.options.patience);
        self.segments_to_go = 2;
        loop {
            let last = match self.client().await {
                Ok(client) => match self.insist(phase, &client).await {
                    Ok(()) if self.has_come(phase, &client).await => return Vec::new(),
                    Ok(()) => "it was not refused".to_owned(),
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            if began.elapsed() > patience {
                return vec![format!(
                    "what was asked for ({phase}) does not come about on a good disk within {patience:?}: {last}"
                )];
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn insist(&mut self, phase: Phase, client: &flotilla_client::Client) -> Result<(), flotilla_client::Error> {
        match phase {
            Phase::Create => topic::leaders(client, CREATED).await.map(drop),
            // Further than before: that nothing is left to be done is no proof that it can be done.
            Phase::Retain => delete_records(client, LEFT).await,
            // Once more only if nobody heard of it.
            Phase::MoveFrom | Phase::MoveTo | Phase::Reopen if self.has_come(phase, client).await => Ok(()),
            phase => self.ask(phase, client).await,
        }
    }

    async fn change_metadata(&mut self) -> Vec<String> {
        let created = match self.client().await {
            Ok(client) => topic::create(&client, UNRELATED, 1, 1, FIRST.patience).await.map(|()| client),
            Err(error) => Err(error),
        };
        match created {
            Ok(client) => {
                self.ledger.begin(UNRELATED, 1);
                let refused = self.ledger.write(&client, UNRELATED, FIRST).await;
                refused.into_values().map(|why| format!("a new topic takes no records: {why}")).collect()
            }
            Err(error) => vec![format!("a new topic cannot be created: {error}")],
        }
    }

    async fn restart(&mut self) -> Result<Vec<String>, SweepError> {
        let (victim, patience) = (self.phase.victim(), self.setup.stage.options.patience);
        let mut wrong = Vec::new();
        let node = self.node(victim)?;
        wrong.extend(node.stop().await);
        node.start().map_err(cannot_start)?;
        if !node.wait_ready_or_ended(patience).await.unwrap_or(true) {
            wrong.push(format!("it does not start again; its log ends so:\n{}", node.log_tail()));
        }
        Ok(wrong)
    }
}

fn cannot_start(error: std::io::Error) -> SweepError {
    SweepError::Prepare(format!("the node cannot be started again: {error}"))
}

/// Whether a log names the file, or the directory in which it is, and says that something went wrong there.
fn says_why(log: &str, path: &std::path::Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let directory = path.parent().map(|parent| parent.to_string_lossy().into_owned()).filter(|parent| parent.contains('/'));
    let names_it = |line: &str| line.contains(&name) || directory.as_ref().is_some_and(|directory| line.contains(directory));
    log.lines().rev().any(|line| line.to_lowercase().contains("error") && names_it(line))
}
