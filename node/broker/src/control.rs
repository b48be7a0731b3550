//! Commands of the controller from anywhere: proposed here if this node leads it, else sent to whoever does.

use flotilla_machines::controller::ControllerRefusal;
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::control_response::Result as Controlled;
use flotilla_proto::internal::v1::controller_command::Command;

use crate::broker::Broker;
use crate::error::{NotServing, TopicError};
use crate::peer_calls::Proposed;
use crate::peer_service::controlled;

impl From<Proposed> for Controlled {
    fn from(proposed: Proposed) -> Self {
        match proposed {
            Proposed::Done(done) => Self::Done(done),
            Proposed::Refused(reason) => Self::Refused(reason),
            Proposed::NotLeader(leader) => Self::NotLeader(leader.unwrap_or(0)),
            Proposed::Unknown(reason) => Self::Unknown(reason),
        }
    }
}

impl From<Controlled> for Proposed {
    fn from(controlled: Controlled) -> Self {
        match controlled {
            Controlled::Done(done) => Self::Done(done),
            Controlled::Refused(reason) => Self::Refused(reason),
            Controlled::NotLeader(leader) => Self::NotLeader((leader != 0).then_some(leader)),
            Controlled::Unknown(reason) => Self::Unknown(reason),
        }
    }
}

impl Broker {
    /// Proposes a command here or at the controller's leader. Asks once: the caller tries again.
    pub(crate) async fn control_anywhere(&self, command: Command) -> Proposed {
        let leader = match Proposed::from(controlled(self.control(command.clone()).await)) {
            Proposed::NotLeader(leader) => leader,
            answered => return answered,
        };
        let Some(leader) = leader.filter(|leader| *leader != self.node_id()) else { return Proposed::NotLeader(None) };
        let address = self.peer_address(leader).or_else(|| self.inner.found_address(leader));
        match address {
            Some(address) => self.inner.calls.control(&address, command, true).await,
            None => Proposed::NotLeader(Some(leader)),
        }
    }

    /// Lets a node lead nothing and get no new replicas (`DRAINING`), makes it ordinary again (`ACTIVE`), or moves everything
    /// off it and forgets it then (`LEAVING`). Must be asked of the controller's leader.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn set_node_state(&self, node_id: u64, state: v1::NodeState) -> Result<(), TopicError> {
        let command = Command::SetNodeState(v1::SetNodeState { node_id, state: state.into() });
        self.control(command).await??;
        Ok(())
    }

    /// Gives a partition other replicas, online. Must be asked of the controller's leader.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn start_move(&self, group_id: u64, target: Vec<u64>) -> Result<(), TopicError> {
        let target = Some(v1::Replicas { nodes: target });
        self.control(Command::StartMove(v1::StartMove { group_id, target })).await??;
        Ok(())
    }

    /// Leaves a partition's replicas as they were before its move. Must be asked of the controller's leader.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn cancel_move(&self, group_id: u64) -> Result<(), TopicError> {
        self.control(Command::CancelMove(v1::CancelMove { group_id })).await??;
        Ok(())
    }

    /// Makes another replica the leader of a partition that this node leads; returns when it leads.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn transfer_leader(&self, group_id: u64, node_id: u64) -> Result<(), TopicError> {
        let what = || format!("group {group_id}");
        let Some(group) = self.hosted_group(group_id).filter(|group| group.is_leader()) else {
            let leader = self.leader_of(group_id).and_then(|leader| Some((leader, self.node_address(leader)?)));
            return Err(NotServing::NotLeader { what: what(), leader }.into());
        };
        let Some(to) = group.membership().voter_on(node_id) else {
            return Err(ControllerRefusal::UnknownNode { node_id }.into());
        };
        if let Some(offline) = group.missing_for_quorum() {
            return Err(NotServing::NoQuorum { what: what(), offline }.into());
        }
        if node_id == self.node_id() {
            return Ok(());
        }
        group.transfer_leader(to).await.map_err(|_| NotServing::NotReady { what: what() })?;
        let mut changes = self.inner.registry.leader_changes();
        let led = async {
            while self.leader_of(group_id) != Some(node_id) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        match tokio::time::timeout(TRANSFER_PATIENCE, led).await {
            Ok(()) => Ok(()),
            Err(_) => {
                Err(TopicError::Unknown { reason: format!("node {node_id} did not take the lead within {TRANSFER_PATIENCE:?}") })
            }
        }
    }
}

/// How long a transfer of leadership may take.
const TRANSFER_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
