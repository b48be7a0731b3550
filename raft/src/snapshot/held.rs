//! The snapshot of a group that is on its way to a replica: who asks for a snapshot meanwhile is given the same, so that a
//! transfer that broke goes on with what it began with.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SnapshotView;

/// One group's. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Held {
    slot: Arc<Mutex<Slot>>,
}

#[derive(Default)]
struct Slot {
    view: Option<SnapshotView>,
    /// Tells one view in here from the next.
    number: u64,
    holders: usize,
}

/// Keeps a snapshot in its place until it is dropped.
pub(crate) struct Holding {
    held: Held,
    number: u64,
}

impl Held {
    /// The snapshot that is on its way, if there is one.
    pub(crate) fn view(&self) -> Option<SnapshotView> {
        self.lock().view.clone()
    }

    /// Holds `view`; a different one that was held before is let go of.
    pub(crate) fn hold(&self, view: &SnapshotView) -> Holding {
        let mut slot = self.lock();
        let is_same = slot.view.as_ref().is_some_and(|held| held.is_same(view));
        if !is_same {
            slot.view = Some(view.clone());
            slot.number += 1;
            slot.holders = 0;
        }
        slot.holders += 1;
        Holding { held: self.clone(), number: slot.number }
    }

    /// Lets go of it, whoever holds it: the data that it shows is not the group's any more.
    pub(crate) fn clear(&self) {
        let mut slot = self.lock();
        slot.view = None;
        slot.number += 1;
        slot.holders = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut slot = self.held.lock();
        if slot.number == self.number {
            slot.holders -= 1;
            if slot.holders == 0 {
                slot.view = None;
            }
        }
    }
}
