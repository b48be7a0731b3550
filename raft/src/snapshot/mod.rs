//! Snapshots: a group's rows and live frames as of one applied entry.
//!
//! The sender pins them rather than copying them ([`SnapshotView`]) and streams them in chunks, each of which says where
//! it starts and where the next one does ([`Cursor`]): so a broken stream goes on where it was, also from another
//! replica, because equal log ids mean equal rows and frames. The receiver collects them beside its own data, under
//! an incarnation of their own ([`IncomingSnapshot`]), and one journal record makes them valid.
//!
//! - `held.rs` what is on its way somewhere · `head.rs` what is announced · `chunk.rs` the format of the stream · `view.rs` the sender's side · `outgoing.rs` its pace
//! - `incoming.rs` the receiver's side · `transfer.rs` what a [`Group`](crate::group::Group) does with them

pub mod chunk;
pub mod head;
mod held;
pub mod incoming;
pub mod outgoing;
#[cfg(test)]
mod tests;
mod transfer;
mod view;

use std::io;

use openraft::type_config::alias::SnapshotMetaOf;

use crate::log::convert::log_id_from_raft;
use crate::log::type_config::TypeConfig;
use crate::types::GroupId;
pub use chunk::{Chunk, Cursor};
pub use head::SnapshotHead;
pub(crate) use held::{Held, Holding};
pub use incoming::{IncomingSnapshot, ReceivedSnapshot};
pub use outgoing::{OutgoingSnapshot, RateLimit};
pub(crate) use view::SnapshotView;

/// What openraft passes around as a snapshot's content.
pub(crate) enum SnapshotData {
    /// What this node could send.
    View(SnapshotView),
    /// What this node has received and not yet switched to.
    Received(Box<ReceivedSnapshot>),
}

impl SnapshotData {
    /// What was received, if it is what `meta` says and `group`'s.
    ///
    /// # Errors
    /// If it is anything else.
    pub(crate) fn into_received(self, group: GroupId, meta: &SnapshotMetaOf<TypeConfig>) -> io::Result<Box<ReceivedSnapshot>> {
        let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("group {group}: {reason}"));
        match self {
            Self::View(_) => Err(invalid("a pinned snapshot cannot be installed: it is to be streamed first")),
            Self::Received(received) => {
                let head = received.head();
                let fits = head.group == group && meta.last_log_id.as_ref().map(log_id_from_raft) == Some(head.last);
                if fits { Ok(received) } else { Err(invalid("the received snapshot is not the one that was announced")) }
            }
        }
    }
}
