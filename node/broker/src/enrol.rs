//! From a data directory with a cluster id to a registered member: finds the others, starts the controller's group if
//! this node founds the cluster, and tells the controller about this node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use flotilla_machines::controller::Image;
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_raft::types::{Replica, ReplicaId};

use crate::broker::{Broker, Inner};
use crate::founding::{ASK_INTERVAL, ask_all, founder, registration};
use crate::peer_calls::Proposed;

/// The controller's group has at most so many voters; every other node learns from them.
pub(crate) const CONTROLLER_VOTERS_MAX: usize = 5;
/// The first replica of the controller's group on a node: that it has the node's id can be known before there is a controller
/// to ask.
pub(crate) fn first_replica(node: u64) -> Replica {
    Replica { id: ReplicaId(node), node }
}

/// How long a start waits for what the seeds say.
const SEEDS_PATIENCE: Duration = Duration::from_secs(1);
/// How often the addresses of the others are looked up when nothing says that they changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Broker {
    /// What this node says about itself and its cluster to the node of that id.
    pub(crate) async fn introduction(&self, to: u64) -> v1::IntroduceResponse {
        let controller = self.controller();
        let leads = controller.is_leader() && controller.read_barrier().await.is_ok();
        let image = self.image();
        let node = |(node_id, node): (u64, &flotilla_machines::controller::Node)| v1::KnownNode {
            node_id,
            peer_address: node.peer_address.clone(),
        };
        v1::IntroduceResponse {
            node_id: self.node_id(),
            directory_id: Bytes::copy_from_slice(&self.inner.directory_id),
            cluster_id: Some(Bytes::copy_from_slice(&self.inner.cluster_id.0)),
            peer_address: self.inner.options.peer_address.clone(),
            nodes: image.nodes().map(node).collect(),
            seeds: self.inner.options.seeds.clone(),
            metadata_version: leads.then(|| image.version()),
            removed: image.removed(to),
        }
    }

    /// Returns once another node has said that this one was removed from the cluster. None has a link to it any more then, so
    /// it hears of that in no other way.
    pub async fn removed(&self) {
        self.inner.removed.cancelled().await;
    }

    async fn ask_whether_removed(&self, others: &BTreeMap<u64, String>) {
        let introduction =
            v1::IntroduceRequest { node_id: self.node_id(), directory_id: Bytes::copy_from_slice(&self.inner.directory_id) };
        let ask = |address: &String| {
            let (address, introduction) = (address.clone(), introduction.clone());
            async move { self.inner.calls.introduce(&address, introduction).await }
        };
        let answers = futures::future::join_all(others.values().map(ask)).await;
        let own = |answer: &v1::IntroduceResponse| answer.cluster_id.as_deref() == Some(&self.inner.cluster_id.0[..]);
        if answers.iter().flatten().any(|answer| answer.removed && own(answer)) {
            self.inner.removed.cancel();
        }
    }

    /// Keeps the links in step with the metadata: who there is, and where.
    pub(crate) async fn follow_nodes(self) {
        let mut image = self.inner.image.clone();
        loop {
            let current = image.borrow_and_update().clone();
            let nodes = self.known_nodes(&current);
            let members = self.controller().membership();
            let mut others =
                members.voters.values().chain(members.learners.values()).filter(|node_id| **node_id != self.node_id());
            // One that stopped before it was registered: without it there may be no majority, and it cannot register.
            let lacks_any = others.any(|node_id| !nodes.contains_key(node_id) && !current.removed(*node_id));
            self.inner.peers.set(nodes.clone());
            if lacks_any {
                self.look_for_seeds().await;
            }
            let linked = self.inner.peers.links().borrow().clone();
            // Not only if there is none: another one that was removed keeps its link to this one.
            let unlinked: BTreeMap<u64, String> =
                nodes.into_iter().filter(|(node_id, _)| !linked.contains_key(node_id)).collect();
            let look_again = async {
                tokio::time::sleep(LOOK_INTERVAL).await;
                self.ask_whether_removed(&unlinked).await;
            };
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                changed = image.changed() => if changed.is_err() { return },
                () = look_again => {}
            }
        }
    }

    /// Who there is, and where: as the metadata says, and, of those that it does not know yet, as they said themselves.
    fn known_nodes(&self, image: &Image) -> BTreeMap<u64, String> {
        let mut nodes = self.inner.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        nodes.retain(|node_id, _| !image.removed(*node_id));
        nodes.extend(image.nodes().map(|(node_id, node)| (node_id, node.peer_address.clone())));
        nodes.remove(&self.node_id());
        nodes
    }

    /// Refuses to go on if the seeds belong to another cluster than this node's data. Who does not answer says nothing.
    ///
    /// # Errors
    /// Whose is what; in words.
    pub(crate) async fn check_seeds(&self) -> Result<(), String> {
        let Inner { options, calls, cluster_id: own, directory_id, .. } = &*self.inner;
        let directory_id = Bytes::copy_from_slice(directory_id);
        let introduction = v1::IntroduceRequest { node_id: options.node_id, directory_id: directory_id.clone() };
        let ask = async |seed: &String| {
            (seed.clone(), tokio::time::timeout(SEEDS_PATIENCE, calls.introduce(seed, introduction.clone())).await)
        };
        let answers = futures::future::join_all(options.seeds.iter().map(ask)).await;
        let of_others = answers.iter().filter_map(|(seed, answer)| Some((seed, answer.as_ref().ok()?.as_ref()?)));
        let of_others = of_others.filter(|(_, answer)| answer.directory_id != directory_id);
        let clusters: Vec<_> = of_others.filter_map(|(seed, answer)| Some((seed, answer.cluster_id.as_ref()?))).collect();
        let Some((seed, _)) = clusters.first() else { return Ok(()) };
        if clusters.iter().any(|(_, cluster)| cluster[..] == own.0) {
            return Ok(());
        }
        let dir = options.data_dir.display();
        Err(format!(
            "the data in {dir} belongs to cluster {own}, but {seed} and all other seeds that answer to another one: correct the seeds, \
             or start the node with its own data directory"
        ))
    }

    /// Returns when the metadata knows this node as it is.
    ///
    /// # Errors
    /// If the cluster refuses this node; in words.
    pub(crate) async fn enrol(&self) -> Result<(), String> {
        let mut image = self.inner.image.clone();
        loop {
            if self.is_enrolled() {
                return Ok(());
            }
            let begun = self.begin_controller().await;
            let registration = registration(&self.inner.options, self.inner.directory_id);
            match self.register(registration).await {
                Proposed::Refused(reason) => return Err(reason),
                Proposed::Done(_) => {}
                Proposed::NotLeader(_) | Proposed::Unknown(_) if begun => tracing::debug!("the controller has no leader yet"),
                Proposed::NotLeader(_) | Proposed::Unknown(_) => tracing::debug!("not enrolled yet"),
            }
            tokio::select! {
                () = self.inner.stop.cancelled() => return Ok(()),
                changed = tokio::time::timeout(ASK_INTERVAL, image.changed()) => drop(changed),
            }
        }
    }

    /// Registers here, at the controller's leader, or through any other node: those that lead may not know where this node is,
    /// and then there is no link over which it would hear who does.
    async fn register(&self, registration: Command) -> Proposed {
        let mut answer = self.control_anywhere(registration.clone()).await;
        let others = self.known_nodes(&self.image());
        for address in others.values() {
            if !matches!(answer, Proposed::NotLeader(_)) {
                break;
            }
            answer = self.inner.calls.control(address, registration.clone(), false).await;
        }
        answer
    }

    fn is_enrolled(&self) -> bool {
        let (image, options) = (self.image(), &self.inner.options);
        image.node(self.node_id()).is_some_and(|node| {
            node.address == options.advertised_address && node.peer_address == options.peer_address && node.rack == options.rack
        })
    }

    /// Finds the other seeds; if this node is the first of them and the cluster is new, forms it. `true`: the controller's
    /// group has begun here.
    async fn begin_controller(&self) -> bool {
        let controller = self.controller();
        let options = &self.inner.options;
        if controller.is_initialized().await {
            if self.image().nodes().len() <= 1 {
                self.look_for_seeds().await;
            }
            return true;
        }
        if options.seeds.is_empty() {
            if let Err(error) = controller.initialize(&[first_replica(self.node_id())]).await {
                tracing::warn!(%error, "the controller's group did not begin");
            }
            return true;
        }
        let Some(seeds) = self.look_for_seeds().await else { return false };
        let first_is_me = founder(&seeds).is_some_and(|seed| seed.directory_id == self.inner.directory_id[..]);
        // Whoever knows nodes has a controller's group: this node learns from it, and must not begin another.
        let has_begun = seeds.iter().any(|seed| !seed.nodes.is_empty());
        if !first_is_me || has_begun || !self.form(&seeds).await {
            return false;
        }
        let ids: BTreeSet<u64> = seeds.iter().map(|seed| seed.node_id).collect();
        let voters: Vec<Replica> = ids.into_iter().take(CONTROLLER_VOTERS_MAX).map(first_replica).collect();
        match controller.initialize(&voters).await {
            Ok(()) => tracing::info!(?voters, "formed the cluster"),
            Err(error) => tracing::warn!(%error, "the controller's group did not begin"),
        }
        true
    }

    /// Asks the seeds; all of them if all answered.
    async fn look_for_seeds(&self) -> Option<Vec<v1::IntroduceResponse>> {
        let introduction =
            v1::IntroduceRequest { node_id: self.node_id(), directory_id: Bytes::copy_from_slice(&self.inner.directory_id) };
        let answers = ask_all(&self.inner.calls, &self.inner.options.seeds, introduction).await;
        let all = answers.iter().all(|(_, answer)| answer.is_some());
        let found: Vec<v1::IntroduceResponse> = answers.into_iter().filter_map(|(_, answer)| answer).collect();
        let mut nodes = BTreeMap::new();
        for answer in &found {
            if answer.cluster_id.as_deref().is_some_and(|cluster_id| cluster_id == self.inner.cluster_id.0) {
                nodes.insert(answer.node_id, answer.peer_address.clone());
                nodes.extend(answer.nodes.iter().map(|node| (node.node_id, node.peer_address.clone())));
            }
        }
        self.inner.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(nodes);
        self.inner.peers.set(self.known_nodes(&self.image()));
        all.then_some(found)
    }

    /// Makes every seed a member. `true`: all of them are.
    async fn form(&self, seeds: &[v1::IntroduceResponse]) -> bool {
        let known =
            |seed: &v1::IntroduceResponse| v1::KnownNode { node_id: seed.node_id, peer_address: seed.peer_address.clone() };
        let request = v1::FormRequest {
            cluster_id: Bytes::copy_from_slice(&self.inner.cluster_id.0),
            founder: self.node_id(),
            nodes: seeds.iter().map(known).collect(),
        };
        let mut all = true;
        for seed in seeds.iter().filter(|seed| seed.cluster_id.as_deref() != Some(&self.inner.cluster_id.0[..])) {
            if seed.cluster_id.is_some() {
                tracing::error!(node_id = seed.node_id, "a seed belongs to another cluster: correct the list of seeds");
                return false;
            }
            if let Err(status) = self.inner.calls.form(&seed.peer_address, request.clone()).await {
                tracing::info!(node_id = seed.node_id, reason = status.message(), "a seed is not a member yet");
                all = false;
            }
        }
        all
    }
}
