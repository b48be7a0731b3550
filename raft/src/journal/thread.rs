//! The thread that drives the journal's writer, and creates its files aside.

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::handle::JournalHandle;
use super::writer::{Journal, Step};

/// How long to wait before trying again where only the outside can help (space on the disk).
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A running journal.
#[derive(Debug)]
pub struct JournalThread {
    handle: JournalHandle,
    thread: Option<JoinHandle<()>>,
}

impl JournalThread {
    /// Starts a thread that writes whatever is submitted.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn(journal: Journal) -> io::Result<Self> {
        let handle = journal.handle();
        let thread = Builder::new().name("journal".into()).spawn(move || drive(journal))?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// A handle to submit with.
    #[must_use]
    pub fn handle(&self) -> JournalHandle {
        self.handle.clone()
    }

    /// Writes what waits, seals and joins the thread.
    pub fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked; what was acknowledged is on disk");
        }
    }
}

impl Drop for JournalThread {
    fn drop(&mut self) {
        self.stop();
    }
}

fn drive(mut journal: Journal) {
    let start = Instant::now();
    let mut preparation: Option<JoinHandle<()>> = None;
    loop {
        let step = journal.step(start.elapsed());
        if let Some(next) = journal.take_preparation() {
            let spawned = Builder::new().name("journal-prepare".into()).spawn(move || next.run());
            preparation = spawned.inspect_err(|error| tracing::error!(%error, "no thread to create a journal file")).ok();
        }
        match step {
            Step::Wrote => {}
            Step::Idle { seal_in } => journal.wait(seal_in),
            Step::Waiting => journal.wait(Some(RETRY_AFTER)),
            Step::Failed if !journal.is_closing() => journal.wait(None),
            Step::Failed | Step::Closed => break,
        }
    }
    if let Some(preparation) = preparation
        && preparation.join().is_err()
    {
        tracing::error!("the thread that creates journal files panicked");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::sync::{Arc, mpsc};

    use super::super::space::Room;
    use super::super::{JournalOptions, JournalSeq, Record};
    use super::*;
    use crate::disk::real::RealDisk;
    use crate::types::{Body, Entry, GroupId, Incarnation, Item, LogId, ReplicaId};

    /// One that was created aside, and that nobody has taken in yet: it would be in the ring twice, and be overwritten.
    #[test]
    fn no_file_is_created_twice() {
        let dir = tempfile::tempdir().unwrap();
        let options = JournalOptions { file_bytes: 1 << 20, ..JournalOptions::default() };
        let (mut journal, _) = Journal::open(Arc::new(RealDisk), &dir.path().join("journal"), options).unwrap();
        let (group, replica, incarnation) = (GroupId(1), ReplicaId(1), Incarnation(1));
        let payload = vec![7; 600_000].into();
        let entries = vec![Entry { log_id: LogId { term: 1, index: 0 }, body: Body::Items([Item { kind: 1, payload }].into()) }];
        let records = vec![Record::Create { group, replica, incarnation }, Record::Append { group, entries }];
        journal.handle().submit(records, |result| assert!(result.is_ok()));
        while journal.has_work() {
            assert!(matches!(journal.step(Duration::ZERO), Step::Wrote));
        }
        journal.take_preparation().expect("the ring has but one file").run();
        assert!(matches!(journal.make_room(600_000, false).unwrap(), Room::Full), "it waits for that file");
        journal.adopt_prepared();
        assert!(matches!(journal.make_room(600_000, false).unwrap(), Room::Fresh { .. }));
    }

    #[test]
    fn closing_writes_what_waits_and_refuses_what_comes_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let options = JournalOptions { file_bytes: 1 << 20, ..JournalOptions::default() };
        let (journal, _) = Journal::open(Arc::new(RealDisk), &path, options.clone()).unwrap();
        let thread = JournalThread::spawn(journal).unwrap();
        let handle = thread.handle();
        let (done, results) = mpsc::channel();
        let (group, incarnation) = (GroupId(1), Incarnation(1));
        handle.submit(vec![Record::Create { group, replica: ReplicaId(1), incarnation }], |_| {});
        for index in 0..100 {
            let payload = vec![index as u8; 40_000].into();
            let body = Body::Items([Item { kind: 1, payload }].into());
            let entries = vec![Entry { log_id: LogId { term: 1, index }, body }];
            let done = done.clone();
            handle.submit(vec![Record::Append { group, entries }], move |result| done.send(result.unwrap()).unwrap());
        }
        thread.close();
        let order: Vec<_> = results.try_iter().collect();
        assert_eq!(order, (2..=101).map(JournalSeq).collect::<Vec<_>>());
        assert_eq!((handle.durable(), handle.queued_bytes()), (JournalSeq(101), 0));
        let (late, refused) = mpsc::channel();
        handle.submit(vec![Record::Remove { group }], move |result| late.send(result.is_err()).unwrap());
        assert!(refused.recv().unwrap());
        let (_, recovered) = Journal::open(Arc::new(RealDisk), &path, options).unwrap();
        assert_eq!(recovered.groups[&group].tail.len(), 100);
        assert!(recovered.damage.is_empty());
    }
}
