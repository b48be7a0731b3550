//! The time of faults.

use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Error};

use super::{PATIENCE, Run};
use crate::fault::{Fault, Leaders, Strike, choose};
use crate::history::micros;
use crate::workload::topic;

/// An answer that names the leaders comes within this, or the fault hits nobody.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(5);

impl Run {
    /// How many faults fit into the run so that each is undone before its end.
    pub(super) fn planned(&self) -> usize {
        let (duration, every) = (micros(self.options.duration), micros(self.options.every).max(1));
        let room = duration.saturating_sub(micros(self.options.down));
        if self.options.faults.is_empty() { 0 } else { usize::try_from(room / every).unwrap_or(usize::MAX) }
    }

    /// Lets every planned fault happen, and waits until the time is over.
    pub(super) async fn strike(&mut self, say: &mut dyn FnMut(String)) -> Vec<Strike> {
        let mut strikes = Vec::new();
        let planned = self.planned();
        let faults = self.options.faults.clone();
        for (fault, number) in faults.into_iter().cycle().zip(1..=planned) {
            let due = micros(self.options.every).saturating_mul(number as u64);
            tokio::time::sleep_until(self.clock.instant(self.began_at + due)).await;
            self.incidents.extend(self.cluster.crashed());
            let fault = self.settle(fault);
            match self.one(fault, number - 1).await {
                Ok(strike) => {
                    say(describe(&strike, number, planned));
                    strikes.push(strike);
                }
                Err(why) => {
                    say(why.clone());
                    self.void_because.push(why);
                }
            }
            if !self.incidents.is_empty() {
                // What comes now would only hide what happened.
                say("a node is not what it should be: stop here".to_owned());
                return strikes;
            }
        }
        tokio::time::sleep_until(self.clock.instant(self.began_at + micros(self.options.duration))).await;
        strikes
    }

    /// Which fault a mix comes to this time.
    fn settle(&mut self, fault: Fault) -> Fault {
        let (cuts, powers) = (self.options.cluster.network.is_some(), self.options.cluster.own_disks);
        let possible = |fault: &Fault| (cuts || !fault.cuts()) && (powers || !fault.cuts_power());
        let mixed: Vec<Fault> = Fault::MIXED.into_iter().filter(possible).collect();
        if fault == Fault::Mix { self.random.pick(&mixed).copied().unwrap_or(Fault::Kill) } else { fault }
    }

    async fn one(&mut self, fault: Fault, turn: usize) -> Result<Strike, String> {
        let leaders = match fault {
            Fault::KillLeaderOfMost => self.leaders().await.map_err(|error| format!("{fault:?} hit nobody: {error}"))?,
            _ => Leaders::new(),
        };
        let all: Vec<u64> = self.cluster.nodes().iter().map(crate::cluster::Node::id).collect();
        let nodes = choose(fault, turn, &all, &leaders, &mut self.random);
        if nodes.is_empty() {
            return Err(format!("{fault:?} hit nobody: no partition has a leader"));
        }
        let at = self.clock.now();
        let failed = |what: &str, error: std::io::Error| format!("{fault:?} of {nodes:?} could not be {what}: {error}");
        fault.inject(&mut self.cluster, &nodes).await.map_err(|error| failed("done", error))?;
        tokio::time::sleep_until(self.clock.instant(at + micros(self.options.down))).await;
        let healed = fault.heal(&mut self.cluster, &nodes);
        let healed_at = healed.map(|()| self.clock.now()).map_err(|error| self.incidents.push(failed("undone", error))).ok();
        let ready_at = self.all_ready(&nodes).await.then(|| self.clock.now());
        Ok(Strike { fault, nodes, at, healed_at, ready_at })
    }

    async fn leaders(&self) -> Result<Leaders, Error> {
        let options =
            ClientOptions { connect_timeout: LEADERS_TIMEOUT, request_timeout: LEADERS_TIMEOUT, ..ClientOptions::default() };
        let client = Client::connect(self.cluster.addresses(0).1, options).await?;
        topic::leaders(&client, &self.options.workload.topic).await
    }

    async fn all_ready(&mut self, nodes: &[u64]) -> bool {
        for id in nodes {
            let Some(node) = self.cluster.node(*id) else { continue };
            if !node.wait_ready(PATIENCE).await {
                let why = node.crashed().unwrap_or_else(|| {
                    format!("node {id} is not ready {PATIENCE:?} after it was let go on; its log ends so:\n{}", node.log_tail())
                });
                self.incidents.push(why);
                return false;
            }
        }
        true
    }
}

fn describe(strike: &Strike, number: usize, planned: usize) -> String {
    let ready = match (strike.healed_at, strike.ready_at) {
        (Some(healed), Some(ready)) => format!("ready {} ms after it was undone", (ready - healed) / 1_000),
        _ => "not ready again".to_owned(),
    };
    format!("fault {number} of {planned}: {:?} of {:?}, {ready}", strike.fault, strike.nodes)
}
