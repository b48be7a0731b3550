//! The journal: one per node, one writer, every group's appends, votes, truncations and marks.
//!
//! The writer takes what waits from a FIFO, encodes it into one **batch**, writes it at a 4 KiB boundary, syncs once, and
//! only then completes the callbacks. Batch N+1 is written only after N is synced, which gives the three rules of
//! recovery:
//!
//! - A valid batch proves that the one before it was synced. A bad batch below a valid one is **damage**; a bad last
//!   one is a **torn tail**, never acknowledged, and is dropped whole.
//! - The last batch proves nothing about itself. So an idle writer, and a clean stop, add a **seal**: a batch without
//!   awaited records.
//! - What the page cache shows after a crash may not be on the disk. So opening writes the last batch again, as the first of
//!   a new file, before anybody hears of it.
//!
//! What this cannot see: that the newest file as a whole is gone. Then the journal looks like an older one that ended there.
//!
//! Batches lie in a ring of preallocated files (`ring.rs`). Each file opens with a **checkpoint** of all groups, so that a file
//! without live entries can be recycled. An entry is live until segments hold it, it is truncated, or a newer file has a
//! copy. Before files run out the journal asks ([`JournalObserver::recycle`]); the owner flushes applied entries to segments
//! ([`JournalHandle::segments_synced`]) and hands in the others again ([`JournalHandle::rejournal`]).
//!
//! If no file is free, ordinary submissions wait at `files_max`. Only what frees files may add files, up to
//! `files_hard_max`: re-journaling, and a queue with a truncation or removal in it (its owner has forgotten the entries that are
//! in the way, so it cannot hand them in again). So writing and recycling never wait for each other, as long as a node's
//! unapplied bytes, which are capped where proposals are admitted, fit into the difference. Files above `files_max` are deleted
//! when they are free again.
//!
//! Of a group that was removed the journal keeps the number of its last replica here. So it knows later that data of such a
//! group is left over, however much of it is deleted already, and refuses a replica that was here before.
//!
//! Where to look: `record.rs`, `frame.rs`, `checkpoint.rs` (formats), `table.rs`, `log_shape.rs` (state), `rules.rs` (what is
//! refused), `handle.rs` (queue), `writer.rs`, `space.rs` (the stepped machine), `open.rs`, `replay.rs`, `scan.rs` (recovery), `thread.rs`, `task.rs` (what drives it).

mod checkpoint;
mod codec;
mod frame;
mod handle;
mod log_shape;
mod observer;
mod open;
mod options;
mod record;
mod replay;
mod ring;
mod rules;
mod scan;
mod space;
mod table;
mod task;
mod thread;
mod writer;

pub use handle::{JournalHandle, JournalSeq};
pub use observer::{BatchStats, JournalObserver, Recycle};
pub use open::{Damage, Recovered, RecoveredGroup};
pub use options::{JournalError, JournalOptions};
pub use record::Record;
pub use ring::Preparation;
pub use table::Suspect;
pub use task::drive;
pub use thread::JournalThread;
pub use writer::{Journal, Step};
