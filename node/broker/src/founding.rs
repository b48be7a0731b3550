//! How a node that belongs to no cluster finds its own, or founds it with the others.
//!
//! Every node is started with the same list of seeds and asks all of them who they are. As soon as one belongs to a
//! cluster, the node joins that. Only if *all* seeds answered and none belongs to any, the one with the lowest id
//! founds one; so a cluster forms once, whatever the order of starts, and a node that lost its disk cannot found a second.
//! What follows membership (electing the controller, registering) is in `enrol.rs`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_raft::data_dir::{ClusterId, DataDir, Found, FreshDir, Identity};
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::OpenError;
use crate::open::BrokerOptions;
use crate::peer_calls::{PeerCalls, Proposed};
use crate::surroundings::Surroundings;

/// How often seeds are asked.
pub(crate) const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a node that was told to become a member may take to note it on its disk.
const CLAIM_PATIENCE: Duration = Duration::from_secs(10);
/// Who waits for longer than that says so again, and then every so often.
const WAIT_USUAL: Duration = Duration::from_secs(10);
const WAIT_SAID_EVERY: Duration = Duration::from_secs(60);

/// What was found in the data directory at the start of a node.
pub enum Home {
    /// It belongs to a cluster.
    Member(Member),
    /// It does not yet: serve [`Newcomer::peer_service`] and call [`Newcomer::join`].
    Newcomer(Newcomer),
}

/// A data directory of a member of a cluster.
pub struct Member {
    pub(crate) data_dir: DataDir,
    /// Other nodes that are known from elsewhere than the metadata: id and peer address.
    pub(crate) known: BTreeMap<u64, String>,
}

/// See [`Home`].
pub struct Newcomer {
    directory: FreshDir,
    pub(crate) shared: Arc<Shared>,
}

/// What the peers of a newcomer see of it.
pub(crate) struct Shared {
    pub(crate) node_id: u64,
    pub(crate) directory_id: [u8; 16],
    pub(crate) options: BrokerOptions,
    surroundings: Surroundings,
    /// The cluster that a founder told it to be of; the first word counts.
    pub(crate) told: watch::Sender<Option<Told>>,
    claimed: watch::Sender<bool>,
    /// What it waits for, in words; empty at first.
    waits: watch::Sender<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) cluster_id: ClusterId,
    pub(crate) nodes: BTreeMap<u64, String>,
}

impl Home {
    /// Locks the data directory and looks whose it is. Blocks.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn find(options: &BrokerOptions, surroundings: &Surroundings) -> Result<Self, OpenError> {
        match DataDir::find(&options.data_dir)? {
            Found::Ours(data_dir) => {
                let found = data_dir.identity().node_id;
                check_node(&options.data_dir, found, options.node_id)?;
                Ok(Self::Member(Member { data_dir, known: BTreeMap::new() }))
            }
            Found::Fresh(directory) => {
                let shared = Shared {
                    node_id: options.node_id,
                    directory_id: *Uuid::new_v4().as_bytes(),
                    options: options.clone(),
                    surroundings: surroundings.clone(),
                    told: watch::Sender::new(None),
                    claimed: watch::Sender::new(false),
                    waits: watch::Sender::default(),
                };
                Ok(Self::Newcomer(Newcomer { directory, shared: Arc::new(shared) }))
            }
        }
    }
}

fn check_node(path: &Path, found: u64, expected: u64) -> Result<(), OpenError> {
    if found == expected {
        return Ok(());
    }
    Err(OpenError::ForeignNode { path: path.to_owned(), found, expected })
}

impl Newcomer {
    /// Whether it will be a cluster of its own: nobody asks it anything before.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.shared.options.seeds.is_empty()
    }

    /// What it waits for, in words; changes.
    #[must_use]
    pub fn waits_for(&self) -> watch::Receiver<String> {
        self.shared.waits.subscribe()
    }

    /// Returns when this node belongs to a cluster, which its data directory then says. Until then its peers must be
    /// able to ask it: see [`Newcomer::peer_service`].
    ///
    /// # Errors
    /// If the cluster refuses the node, the disk refuses, or `stop` is cancelled.
    pub async fn join(self, stop: &CancellationToken) -> Result<Member, OpenError> {
        let Told { cluster_id, nodes } = tokio::select! {
            told = self.find_cluster() => told?,
            () = stop.cancelled() => return Err(OpenError::Stopped),
        };
        let Shared { node_id, directory_id, claimed, surroundings, .. } = &*self.shared;
        let created_at_ms = surroundings.clock.now_ms();
        let identity = Identity { cluster_id, node_id: *node_id, directory_id: *directory_id, created_at_ms };
        let directory = self.directory;
        let data_dir = surroundings.driver.run(move || directory.claim(identity)).await??;
        claimed.send_replace(true);
        tracing::info!(cluster = %cluster_id, node_id, "member of a cluster");
        Ok(Member { data_dir, known: nodes })
    }

    async fn find_cluster(&self) -> Result<Told, OpenError> {
        let seeds = &self.shared.options.seeds;
        if seeds.is_empty() {
            return Ok(Told { cluster_id: new_cluster(), nodes: BTreeMap::new() });
        }
        let calls = PeerCalls::new(self.shared.surroundings.dialer.clone());
        let mut told = self.shared.told.subscribe();
        let mut said = Said::default();
        loop {
            if let Some(told) = told.borrow_and_update().clone() {
                return Ok(told);
            }
            let answers = ask_all(&calls, seeds, self.shared.introduction()).await;
            match decide(&self.shared, &answers) {
                Step::Found => return Ok(Told { cluster_id: new_cluster(), nodes: BTreeMap::new() }),
                Step::Join(cluster) => {
                    // Before this node answers for any group: the cluster may refuse it.
                    if register(&calls, &cluster.nodes, self.shared.registration()).await? {
                        return Ok(cluster);
                    }
                }
                Step::Wait(why) => {
                    said.say(self.shared.node_id, &why);
                    self.shared.waits.send_replace(why);
                }
            }
            // Whoever forms the cluster need not wait for the next round.
            let _ = tokio::time::timeout(ASK_INTERVAL, told.changed()).await;
        }
    }
}

/// What was said about what a newcomer waits for: that it waits is usual; that it goes on waiting for the same is not.
#[derive(Default)]
struct Said {
    why: String,
    /// When it is to be said again.
    again: Option<Instant>,
}

impl Said {
    fn say(&mut self, node_id: u64, why: &str) {
        if self.why != why {
            tracing::info!(node_id, why, "waiting for a cluster to form");
            (self.why, self.again) = (why.to_owned(), Some(Instant::now() + WAIT_USUAL));
        } else if self.again.is_some_and(|again| again <= Instant::now()) {
            tracing::warn!(node_id, why, "still waiting for a cluster to form");
            self.again = Some(Instant::now() + WAIT_SAID_EVERY);
        }
    }
}

impl Shared {
    pub(crate) fn introduction(&self) -> v1::IntroduceRequest {
        v1::IntroduceRequest { node_id: self.node_id, directory_id: Bytes::copy_from_slice(&self.directory_id) }
    }

    pub(crate) fn registration(&self) -> Command {
        registration(&self.options, self.directory_id)
    }

    /// Becomes a member of a cluster that is being formed.
    pub(crate) async fn form(&self, told: Told) -> Result<(), String> {
        self.told.send_if_modified(|current| current.is_none() && current.replace(told.clone()).is_none());
        let current = self.told.borrow().as_ref().map(|current| current.cluster_id);
        if current != Some(told.cluster_id) {
            return Err("this node is becoming a member of another cluster".to_owned());
        }
        let mut claimed = self.claimed.subscribe();
        match tokio::time::timeout(CLAIM_PATIENCE, claimed.wait_for(|claimed| *claimed)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err("this node did not note its membership in time".to_owned()),
        }
    }
}

/// What a node tells the controller about itself.
pub(crate) fn registration(options: &BrokerOptions, directory_id: [u8; 16]) -> Command {
    Command::RegisterNode(v1::RegisterNode {
        node_id: options.node_id,
        address: options.advertised_address.clone(),
        peer_address: options.peer_address.clone(),
        rack: options.rack.clone(),
        directory_id: Bytes::copy_from_slice(&directory_id),
    })
}

fn new_cluster() -> ClusterId {
    ClusterId(*Uuid::new_v4().as_bytes())
}

/// Asks every seed who it is. In the order of the seeds; `None` where nobody answered.
pub(crate) async fn ask_all(
    calls: &PeerCalls,
    seeds: &[String],
    introduction: v1::IntroduceRequest,
) -> Vec<(String, Option<v1::IntroduceResponse>)> {
    let ask = |seed: &String| {
        let (seed, introduction) = (seed.clone(), introduction.clone());
        async move {
            let answer = calls.introduce(&seed, introduction).await;
            (seed, answer)
        }
    };
    join_all(seeds.iter().map(ask)).await
}

/// `true`: accepted. `false`: nobody could say, try again.
async fn register(calls: &PeerCalls, nodes: &BTreeMap<u64, String>, registration: Command) -> Result<bool, OpenError> {
    for address in nodes.values() {
        match calls.control(address, registration.clone(), false).await {
            Proposed::Done(_) => return Ok(true),
            Proposed::Refused(reason) => return Err(OpenError::Controller(reason)),
            Proposed::NotLeader(_) | Proposed::Unknown(_) => {}
        }
    }
    Ok(false)
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Be the first node of a new cluster.
    Found,
    Join(Told),
    /// Why, in words.
    Wait(String),
}

/// The one of the seeds that forms the cluster: the same for all, however each has written its list.
pub(crate) fn founder<'a>(seeds: impl IntoIterator<Item = &'a v1::IntroduceResponse>) -> Option<&'a v1::IntroduceResponse> {
    seeds.into_iter().min_by_key(|seed| seed.node_id)
}

/// What a newcomer does about what the seeds answered. Pure.
fn decide(me: &Shared, answers: &[(String, Option<v1::IntroduceResponse>)]) -> Step {
    let mut clusters: BTreeMap<&Bytes, BTreeMap<u64, String>> = BTreeMap::new();
    for answer in answers.iter().filter_map(|(_, answer)| answer.as_ref()) {
        if let Some(cluster_id) = &answer.cluster_id {
            let nodes = clusters.entry(cluster_id).or_default();
            nodes.insert(answer.node_id, answer.peer_address.clone());
            nodes.extend(answer.nodes.iter().map(|node| (node.node_id, node.peer_address.clone())));
        }
    }
    if clusters.len() > 1 {
        let belongs = |(seed, answer): &(String, Option<v1::IntroduceResponse>)| {
            let cluster_id = <[u8; 16]>::try_from(answer.as_ref()?.cluster_id.as_deref()?).ok()?;
            Some(format!("{seed} to {}", ClusterId(cluster_id)))
        };
        let belong: Vec<String> = answers.iter().filter_map(belongs).collect();
        return Step::Wait(format!("the seeds belong to different clusters ({}): correct the list of seeds", belong.join(", ")));
    }
    if let Some((cluster_id, nodes)) = clusters.into_iter().next() {
        return match <[u8; 16]>::try_from(&cluster_id[..]) {
            Ok(cluster_id) => Step::Join(Told { cluster_id: ClusterId(cluster_id), nodes }),
            Err(_) => Step::Wait("a seed speaks another language: is it a flotilla of this version?".to_owned()),
        };
    }
    let silent: Vec<&str> = answers.iter().filter(|(_, answer)| answer.is_none()).map(|(seed, _)| seed.as_str()).collect();
    if !silent.is_empty() {
        return Step::Wait(format!("no answer yet from {}: a new cluster forms once every seed has answered", silent.join(", ")));
    }
    let found: Vec<&v1::IntroduceResponse> = answers.iter().filter_map(|(_, answer)| answer.as_ref()).collect();
    if let Some(why) = same_ids(answers) {
        return Step::Wait(why);
    }
    match founder(found) {
        Some(first) if first.directory_id == me.directory_id[..] => Step::Found,
        Some(first) => Step::Wait(format!("node {} has the lowest id of the seeds and forms the cluster", first.node_id)),
        None => Step::Wait("there are no seeds".to_owned()),
    }
}

/// The seeds that have one id, if some have.
fn same_ids(answers: &[(String, Option<v1::IntroduceResponse>)]) -> Option<String> {
    let mut seeds: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for (seed, answer) in answers {
        if let Some(answer) = answer {
            seeds.entry(answer.node_id).or_default().push(seed);
        }
    }
    let (node_id, seeds) = seeds.into_iter().find(|(_, seeds)| seeds.len() > 1)?;
    let seeds = seeds.join(" and ");
    Some(format!("{seeds} have the same node id, {node_id}: give each node its own --node-id, and name each seed once"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::test_node;

    fn me() -> Shared {
        let options = test_node::options(1, Path::new("unused"), "a:1");
        let (told, claimed) = (watch::Sender::new(None), watch::Sender::new(false));
        let waits = watch::Sender::default();
        Shared { node_id: 1, directory_id: [1; 16], options, surroundings: Surroundings::real(), told, claimed, waits }
    }

    fn answer(node_id: u64, cluster: Option<u8>) -> (String, Option<v1::IntroduceResponse>) {
        let answer = v1::IntroduceResponse {
            node_id,
            directory_id: Bytes::copy_from_slice(&[node_id as u8; 16]),
            cluster_id: cluster.map(|cluster| Bytes::copy_from_slice(&[cluster; 16])),
            peer_address: format!("n{node_id}:1"),
            nodes: Vec::new(),
            seeds: Vec::new(),
            metadata_version: None,
            removed: false,
        };
        (format!("n{node_id}:1"), Some(answer))
    }

    fn silent() -> (String, Option<v1::IntroduceResponse>) {
        ("nobody:1".to_owned(), None)
    }

    fn waits(step: &Step, for_what: &str) {
        assert!(matches!(step, Step::Wait(why) if why.contains(for_what)), "{step:?}");
    }

    #[test]
    fn only_the_lowest_seed_founds_a_cluster_and_only_if_all_answered_and_none_has_one() {
        let (one, two, three) = (answer(1, None), answer(2, None), answer(3, None));
        assert_eq!(decide(&me(), &[one.clone(), two.clone(), three.clone()]), Step::Found);
        assert_eq!(decide(&me(), &[three.clone(), one.clone(), two.clone()]), Step::Found, "in whatever order they are listed");
        waits(&decide(&me(), &[three.clone(), two.clone()]), "node 2 has the lowest id");
        waits(&decide(&me(), &[one.clone(), silent(), three]), "no answer yet from nobody:1");
        waits(&decide(&me(), &[one, two.clone(), two]), "n2:1 and n2:1 have the same node id, 2");
    }

    #[test]
    fn a_seed_with_a_cluster_is_joined_even_if_others_are_silent() {
        let step = decide(&me(), &[answer(1, None), silent(), answer(3, Some(9))]);
        let nodes = BTreeMap::from([(3, "n3:1".to_owned())]);
        assert_eq!(step, Step::Join(Told { cluster_id: ClusterId([9; 16]), nodes }));
        waits(&decide(&me(), &[answer(1, None), answer(2, Some(8)), answer(3, Some(9))]), "different clusters (n2:1 to 08080808");
    }

    #[tokio::test]
    async fn the_first_founder_is_believed_and_no_other() {
        let me = me();
        me.claimed.send_replace(true);
        let told = |cluster| Told { cluster_id: ClusterId([cluster; 16]), nodes: BTreeMap::new() };
        me.form(told(1)).await.unwrap();
        me.form(told(1)).await.unwrap();
        assert!(me.form(told(2)).await.unwrap_err().contains("another cluster"));
    }
}
