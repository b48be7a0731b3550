//! Who holds a group's live entries in memory, so that the journal can always get them out of a file it wants back:
//! a group that runs, one that is being removed, and one that was recovered and does not run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::flusher::FlusherHandle;
use crate::journal::{JournalHandle, RecoveredGroup, Recycle};
use crate::log::group_log::GroupLog;
use crate::types::{Entry, GroupId};

/// See the module. Cheap to clone; every group that the journal knows is in here.
#[derive(Clone)]
pub(crate) struct Holders {
    flusher: FlusherHandle,
    groups: Arc<Mutex<BTreeMap<GroupId, Holder>>>,
}

enum Holder {
    Log(Arc<GroupLog>),
    /// The tail that the journal recovered; nobody has opened the group's log.
    Recovered(Vec<Entry>),
}

impl Holders {
    pub(crate) fn new(flusher: FlusherHandle, recovered: &BTreeMap<GroupId, RecoveredGroup>) -> Self {
        let groups = recovered.iter().map(|(group, recovered)| (*group, Holder::Recovered(recovered.tail.clone())));
        Self { flusher, groups: Arc::new(Mutex::new(groups.collect())) }
    }

    /// The group's log holds its entries from now on.
    pub(crate) fn opened(&self, log: &Arc<GroupLog>) {
        self.lock().insert(log.group(), Holder::Log(log.clone()));
    }

    /// The group's log is closed, and may be opened again.
    pub(crate) fn recovered(&self, group: GroupId, recovered: &RecoveredGroup) {
        self.lock().insert(group, Holder::Recovered(recovered.tail.clone()));
    }

    /// The journal knows durably that the group is gone.
    pub(crate) fn removed(&self, group: GroupId) {
        self.lock().remove(&group);
    }

    /// Carries out the journal's wishes: applied entries go to segments, the others to the journal again.
    pub(crate) fn recycle(&self, journal: &JournalHandle, wishes: &[Recycle]) {
        let groups = self.lock();
        for wish in wishes {
            match groups.get(&wish.group) {
                Some(Holder::Log(log)) => self.flusher.recycle(log, wish.upto),
                Some(Holder::Recovered(tail)) => {
                    let wanted = tail.iter().filter(|entry| entry.log_id.index <= wish.upto).cloned().collect();
                    journal.rejournal(wish.group, wanted, |_| {});
                }
                None => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Holder>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} groups", self.lock().len())
    }
}
