//! A group that is no longer hosted here is removed: first the journal says so, then its data is deleted. However far that
//! came when a crash or an error cuts it short, the rest is deleted later: see `log/leftovers.rs`.

use std::io;

use super::Registry;
use super::states::{Down, Known};
use crate::journal::Record;
use crate::types::GroupId;

impl Registry {
    /// Stops a group and deletes its data. Nothing happens if it is absent.
    ///
    /// # Errors
    /// If it does not stop, or the journal cannot be written: it is down then, and calling this again goes on.
    pub async fn remove(&self, group: GroupId) -> io::Result<()> {
        let (claim, known) = self.groups.claim_removal(group).map_err(io::Error::other)?;
        self.transfers.forget(group).await;
        let removed = match &known {
            Known::Closing(closing) => match self.wait_ended(closing).await {
                Ok(()) => self.write_through(vec![Record::Remove { group }]).await,
                Err(error) => Err(error),
            },
            Known::Stopped(_) => self.write_through(vec![Record::Remove { group }]).await,
            Known::New | Known::Nothing => Ok(()),
        };
        if let Err(error) = removed {
            claim.end_down(Down::passing(format!("it was not removed: {error}"), known));
            return Err(error);
        }
        let recovered = match known {
            // Nothing is written into the group's directory any more.
            Known::Closing(closing) => closing.log().retire(),
            Known::Stopped(recovered) => *recovered,
            Known::New => {
                claim.end_removed(None);
                return Ok(());
            }
            // Of that there is no claim.
            Known::Nothing => return Ok(()),
        };
        self.holders.removed(group);
        let _ = self.flusher.barrier().await;
        self.troubles.clear_group(group);
        let (lives, incarnation) = (self.lives.clone(), recovered.incarnation);
        let delete = move || {
            lives.delete(group, incarnation);
            lives.forget_joining(group)
        };
        if let Err(error) = self.options.driver.try_run(delete).await {
            tracing::warn!(%group, %error, "what was noted about the group's copy was not deleted");
        }
        claim.end_removed(Some(recovered.replica));
        Ok(())
    }

    /// The groups that were removed here, and of which the number of their last replica is kept.
    #[must_use]
    pub fn removed_groups(&self) -> Vec<GroupId> {
        self.groups.all_removed()
    }

    /// Forgets that groups were removed. To be called once they are gone everywhere: they never come back. Those of which data is
    /// left here are not forgotten yet.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub async fn forget(&self, mut groups: Vec<GroupId>) -> io::Result<()> {
        groups.retain(|group| self.lives.is_gone(*group));
        if groups.is_empty() {
            return Ok(());
        }
        self.write_through(groups.iter().map(|group| Record::Forget { group: *group }).collect()).await?;
        self.groups.forget(&groups);
        Ok(())
    }
}
