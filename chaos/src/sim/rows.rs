//! The rows of a simulated node: an [`OrderedState`] whose operations can be made to fail, and which a power failure takes
//! back to any moment since its last flush.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::ValueEnum;
use flotilla_raft::disk::sim::Rng;
use flotilla_raft::state::{KeyValue, OrderedState, State, StateError, StateView, WriteBatch};
use serde::{Deserialize, Serialize};

/// What is asked of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum RowsOp {
    /// The store is opened
    Open,
    /// Rows are read
    Read,
    /// Rows are written
    Write,
    /// What was written is made durable
    Flush,
}

/// See the module. Clones are the same rows.
#[derive(Clone)]
pub struct MeddledRows {
    rows: OrderedState,
    meddling: Arc<Mutex<Meddling>>,
}

struct Meddling {
    rng: Rng,
    /// What fails after so many others, and how often.
    failing: Option<(RowsOp, u32, u32)>,
}

impl MeddledRows {
    /// No rows yet; what a power failure leaves follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let meddling = Meddling { rng: Rng::new(seed), failing: None };
        Self { rows: OrderedState::default(), meddling: Arc::new(Mutex::new(meddling)) }
    }

    /// From now on, `times` operations fail, once `after` have passed.
    pub fn fail(&self, op: RowsOp, after: u32, times: u32) {
        self.lock().failing = Some((op, after, times));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.lock().failing = None;
    }

    /// The process or the machine ended: rows are what they were at some moment since the last flush.
    pub fn cut(&self) {
        let meddling = &mut *self.lock();
        self.rows.power_cut_to(|writes| usize::try_from(meddling.rng.below(writes as u64 + 1)).unwrap_or_default());
    }

    /// What a process opens.
    ///
    /// # Errors
    /// If it is to fail.
    pub fn open(&self) -> Result<Arc<dyn State>, StateError> {
        self.meet(RowsOp::Open)?;
        Ok(Arc::new(self.clone()))
    }

    fn meet(&self, op: RowsOp) -> Result<(), StateError> {
        let mut meddling = self.lock();
        let Some((failing, after, times)) = &mut meddling.failing else { return Ok(()) };
        if *failing != op || *times == 0 {
            return Ok(());
        }
        if *after > 0 {
            *after -= 1;
            return Ok(());
        }
        *times -= 1;
        tracing::info!(?op, "the rows fail");
        Err(StateError::Failed { dir: PathBuf::from("state"), reason: "Input/output error (os error 5)".to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, Meddling> {
        self.meddling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State for MeddledRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.meet(RowsOp::Read)?;
        self.rows.get(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError> {
        self.meet(RowsOp::Read)?;
        State::scan(&self.rows, prefix, from, limit)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        self.meet(RowsOp::Write)?;
        self.rows.write(batch)
    }

    fn flush(&self) -> Result<(), StateError> {
        self.meet(RowsOp::Flush)?;
        self.rows.flush()
    }

    fn unflushed_bytes(&self) -> u64 {
        self.rows.unflushed_bytes()
    }

    fn snapshot(&self) -> Box<dyn StateView> {
        self.rows.snapshot()
    }
}
