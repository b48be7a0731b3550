//! Room in memory for proposals: the node has some for all of its groups, and each of them at most a share of it. So a group
//! that does not get on leaves room for the others.

use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Bytes that one unit of a semaphore stands for.
const UNIT_BYTES: usize = 1024;
/// A group gets this part of the node's room.
const SHARE: u32 = 4;

/// The room of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    free: Arc<Semaphore>,
    units: u32,
}

/// What a group may take of it.
#[derive(Debug)]
pub(crate) struct Share {
    node: Admission,
    free: Arc<Semaphore>,
    units: u32,
}

/// Room for one proposal, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _of_group: OwnedSemaphorePermit,
    _of_node: OwnedSemaphorePermit,
}

impl Admission {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = units(bytes);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// The share of one group.
    pub(crate) fn share(&self) -> Share {
        let units = (self.units / SHARE).max(1);
        Share { node: self.clone(), free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Bytes that are taken now.
    pub(crate) fn taken_bytes(&self) -> usize {
        (self.units as usize).saturating_sub(self.free.available_permits()) * UNIT_BYTES
    }
}

impl Share {
    /// Room for a proposal of `bytes`, if there is some at once. What is larger than all that there is gets all of it.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Room> {
        let of_group = self.free.clone().try_acquire_many_owned(units(bytes).min(self.units)).ok()?;
        let of_node = self.node.free.clone().try_acquire_many_owned(units(bytes).min(self.node.units)).ok()?;
        Some(Room { _of_group: of_group, _of_node: of_node })
    }

    /// The same, once there is some: of the group first, so that who waits for that keeps no other group waiting.
    ///
    /// # Errors
    /// When the node closes.
    pub(crate) async fn take(&self, bytes: usize) -> Result<Room, AcquireError> {
        let of_group = self.free.clone().acquire_many_owned(units(bytes).min(self.units)).await?;
        let of_node = self.node.free.clone().acquire_many_owned(units(bytes).min(self.node.units)).await?;
        Ok(Room { _of_group: of_group, _of_node: of_node })
    }
}

/// Something of everything, so that their number has a limit, too.
fn units(bytes: usize) -> u32 {
    u32::try_from(bytes / UNIT_BYTES + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_group_that_does_not_get_on_leaves_room_for_others() {
        let node = Admission::new(64 * UNIT_BYTES);
        let (stuck, other) = (node.share(), node.share());
        let held: Vec<Room> = std::iter::from_fn(|| stuck.try_take(UNIT_BYTES)).collect();
        assert_eq!(node.taken_bytes(), held.len() * 2 * UNIT_BYTES);
        assert!(stuck.take(0).now_or_never().is_none(), "it waits for its own");
        assert!(other.take(8 * UNIT_BYTES).now_or_never().unwrap().is_ok());
        assert!(node.taken_bytes() <= 64 * UNIT_BYTES / 4);
        drop(held);
        assert_eq!(node.taken_bytes(), 0);
    }

    #[tokio::test]
    async fn what_is_larger_than_all_gets_all() {
        let share = Admission::new(8 * UNIT_BYTES).share();
        let all = share.take(usize::MAX).now_or_never().unwrap().unwrap();
        assert!(share.try_take(0).is_none());
        drop(all);
        assert!(share.try_take(0).is_some());
    }
}
