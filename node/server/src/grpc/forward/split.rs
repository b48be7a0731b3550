//! Requests about several partitions: each leader is asked about its own, and the answers are put together.

use std::collections::BTreeMap;
use std::time::Instant;

use flotilla_broker::Topic;
use futures::future::join_all;
use futures::{StreamExt, stream};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::{Call, Envelope, Gateway, Leader, PAUSE, Problem, Reason, Repeat, Target};

/// Partitions of this node that are asked at the same time.
const AT_ONCE: usize = 64;

/// What one round has brought: answers by partition, and partitions that must be asked again, with the reason.
struct Round<T> {
    answers: Vec<(u32, T)>,
    again: Vec<(u32, Problem)>,
}

impl Gateway {
    /// Asks about each of `partitions` where its leader is. `here` answers for one, `there` for those that another node
    /// leads, in the order given. The answers come in the order of the partitions. Only for reads: what fails in passing
    /// is asked again as long as patience lasts.
    ///
    /// # Errors
    /// The first that does not pass.
    pub async fn by_leader<T, Here, There>(
        &self,
        call: Call,
        topic: &Topic,
        partitions: impl IntoIterator<Item = u32>,
        here: impl Fn(u32) -> Here,
        there: impl Fn(Channel, Envelope, Vec<u32>) -> There,
    ) -> Result<Vec<T>, Problem>
    where
        Here: Future<Output = Result<T, Problem>>,
        There: Future<Output = Result<Response<Vec<T>>, Status>>,
    {
        let mut answers = BTreeMap::new();
        let mut pending: Vec<u32> = partitions.into_iter().collect();
        loop {
            let round = self.round(call, topic, &pending, &here, &there).await?;
            answers.extend(round.answers);
            let Some((partition, problem)) = round.again.first() else {
                return Ok(answers.into_values().collect());
            };
            if let Some(gone) = Target::partition(topic, *partition).and_then(|target| self.gone(&target)) {
                return Err(gone);
            }
            if call.direct || Instant::now() + PAUSE >= call.patient_until {
                return Err(problem.clone());
            }
            pending = round.again.into_iter().map(|(partition, _)| partition).collect();
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn round<T, Here, There>(
        &self,
        call: Call,
        topic: &Topic,
        partitions: &[u32],
        here: &impl Fn(u32) -> Here,
        there: &impl Fn(Channel, Envelope, Vec<u32>) -> There,
    ) -> Result<Round<T>, Problem>
    where
        Here: Future<Output = Result<T, Problem>>,
        There: Future<Output = Result<Response<Vec<T>>, Status>>,
    {
        let mut round = Round { answers: Vec::with_capacity(partitions.len()), again: Vec::new() };
        let mut local = Vec::new();
        let mut remote: BTreeMap<(u64, String), Vec<(u32, Target)>> = BTreeMap::new();
        for &partition in partitions {
            // One that does not exist is refused here, in the broker's words.
            let Some(target) = Target::partition(topic, partition) else {
                local.push(partition);
                continue;
            };
            match self.leader(&target) {
                Leader::Here => local.push(partition),
                Leader::There(node, address) if !call.direct => {
                    remote.entry((node, address)).or_default().push((partition, target));
                }
                Leader::There(..) | Leader::Nobody => round.again.push((partition, self.not_leader(&target))),
            }
        }
        let asked = remote.iter().map(|((node, address), targets)| self.ask(call, (*node, address), targets, there));
        let local = local.into_iter().map(|partition| async move { (vec![partition], one(here(partition).await)) });
        let (answered, asked) = futures::join!(stream::iter(local).buffered(AT_ONCE).collect::<Vec<_>>(), join_all(asked));
        for (partitions, answer) in answered.into_iter().chain(asked) {
            match answer {
                Ok(answers) => round.answers.extend(partitions.into_iter().zip(answers)),
                Err(problem) if problem.is_passing() || problem.reason() == Reason::OutcomeUnknown => {
                    round.again.extend(partitions.into_iter().map(|partition| (partition, problem.clone())));
                }
                Err(problem) => return Err(problem),
            }
        }
        Ok(round)
    }

    async fn ask<T, There>(
        &self,
        call: Call,
        (node, address): (u64, &str),
        targets: &[(u32, Target)],
        there: &impl Fn(Channel, Envelope, Vec<u32>) -> There,
    ) -> (Vec<u32>, Result<Vec<T>, Problem>)
    where
        There: Future<Output = Result<Response<Vec<T>>, Status>>,
    {
        let partitions: Vec<u32> = targets.iter().map(|(partition, _)| *partition).collect();
        let Some((_, target)) = targets.first() else { return (partitions, Ok(Vec::new())) };
        let asked = async {
            let connection = self.connection(node, address).await?;
            let answer = there(connection.channel.clone(), self.envelope(call.deadline), partitions.clone()).await;
            let answers = answer.map_err(|status| self.failed(&connection, target, Repeat::Read, &status))?.into_inner();
            if answers.len() == partitions.len() {
                return Ok(answers);
            }
            let message = format!("node {node} gave {} answers about {} partitions", answers.len(), partitions.len());
            Err(Problem::new(Reason::Internal, message))
        };
        let answers = asked.await;
        (partitions, answers)
    }
}

fn one<T>(answer: Result<T, Problem>) -> Result<Vec<T>, Problem> {
    answer.map(|answer| vec![answer])
}
