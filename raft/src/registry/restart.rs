//! A group whose core died is started again from what is durable, while all others go on; so is one that is down for a
//! passing reason.

use super::start::Opening;
use super::states::{Down, Known, Step};
use super::{Begin, Registry, StartError};
use crate::group::Group;
use crate::machine::Machine;
use crate::proposals::Preamble;
use crate::types::GroupId;

impl Registry {
    /// Stops a group if it runs, whatever state it is in, and starts it again from what is durable. To be called when
    /// [`Standing::died`](crate::standing::Standing::died) says so; handles of the group from before are of no use
    /// afterwards.
    ///
    /// # Errors
    /// See [`StartError`]. The group is down then, with everything that it has: calling this again goes on.
    pub async fn restart(
        &self,
        group: GroupId,
        machine: Box<dyn Machine>,
        preamble: Option<Preamble>,
    ) -> Result<Group, StartError> {
        let (claim, known) = self.groups.claim_restart(group)?;
        if let Known::Closing(closing) = &known {
            // If it has not ended by then, the start finds that, too.
            let _ = self.wait_ended(closing).await;
        }
        claim.goes_on(Step::Starting);
        let Some(replica) = known.replica() else {
            let reason = "nothing of it is here yet".to_owned();
            claim.end_down(Down::passing(reason.clone(), known));
            return Err(StartError::Down { group, reason });
        };
        self.bring_up(claim, known, Opening { group, replica, machine, preamble, begin: Begin::Resume }).await
    }
}
