//! A group whose core died is started again from what is durable, while all others go on.

use std::io;

use super::{Begin, Registry, StartError, lock};
use crate::group::Group;
use crate::machine::Machine;
use crate::proposals::Preamble;
use crate::types::GroupId;

impl Registry {
    /// Stops a group that runs, whatever state it is in, and starts it again from what is durable. To be called when
    /// [`Standing::died`](crate::standing::Standing::died) says so; handles of the group from before are of no use
    /// afterwards.
    ///
    /// # Errors
    /// See [`StartError`]. The group does not run then.
    pub async fn restart(
        &self,
        group: GroupId,
        machine: Box<dyn Machine>,
        preamble: Option<Preamble>,
    ) -> Result<Group, StartError> {
        let before = lock(&self.running).remove(&group);
        if let Some(before) = before {
            self.give_back(&before).await.map_err(|source| StartError::Io { group, source })?;
        }
        self.start(group, machine, preamble, Begin::Wait).await
    }

    /// Ends a group, and notes what is durable of it as a start from the disk would find it.
    pub(super) async fn give_back(&self, group: &Group) -> io::Result<()> {
        group.shutdown().await;
        let log = group.log();
        // What the group submitted before it died becomes durable before anybody builds on it.
        self.write_through(Vec::new()).await?;
        self.flusher.sync_and_wait(log).await?;
        self.flusher.barrier().await?;
        let recovered = log.retire();
        self.holders.recovered(group.id(), &recovered);
        lock(&self.recovered).insert(group.id(), recovered);
        Ok(())
    }
}
