//! Confirming with a majority that this node leads a group: one round for all who ask while the one before is on its way.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::types::NodeId;

/// A majority that has not answered by then does not hear this node.
const PATIENCE: Duration = Duration::from_secs(5);

/// Nobody confirmed it.
#[derive(Debug, Clone)]
pub(crate) struct Unconfirmed {
    /// Who leads the group, if that is known.
    pub(crate) leader: Option<NodeId>,
    /// What openraft said.
    pub(crate) reason: String,
}

/// The rounds of one group.
#[derive(Debug)]
pub(crate) struct Barriers {
    /// How many rounds have begun.
    begun: AtomicU64,
    last: Mutex<Round>,
}

/// A round that has ended.
#[derive(Debug)]
struct Round {
    number: u64,
    outcome: Result<(), Unconfirmed>,
}

impl Default for Barriers {
    fn default() -> Self {
        Self { begun: AtomicU64::new(0), last: Mutex::new(Round { number: 0, outcome: Ok(()) }) }
    }
}

impl Barriers {
    /// The outcome of a round that began after this was called: of `confirm`, or of somebody else's.
    pub(crate) async fn pass<F>(&self, confirm: impl FnOnce() -> F) -> Result<(), Unconfirmed>
    where
        F: Future<Output = Result<(), Unconfirmed>>,
    {
        // A round that has begun already may have asked before something was acknowledged that this caller knows of.
        let begun = self.begun.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        if last.number <= begun {
            let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
            let late = || Err(Unconfirmed { leader: None, reason: format!("no majority answered within {PATIENCE:?}") });
            let outcome = tokio::time::timeout(PATIENCE, confirm()).await.unwrap_or_else(|_| late());
            *last = Round { number, outcome };
        }
        last.outcome.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::future::join_all;
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn who_asks_during_a_round_shares_the_next() {
        let (barriers, rounds, running) = (Barriers::default(), Cell::new(0), Cell::new(false));
        let confirm = || async {
            assert!(!running.replace(true), "one at a time");
            rounds.set(rounds.get() + 1);
            yield_now().await;
            running.set(false);
            Ok(())
        };
        let first = barriers.pass(confirm);
        let others = join_all((0..100).map(|_| barriers.pass(confirm)));
        let (first, others) = futures::join!(first, others);
        assert!(first.is_ok() && others.iter().all(Result::is_ok));
        assert_eq!(rounds.get(), 2, "one before the others asked, one for all of them");
        assert!(barriers.pass(confirm).await.is_ok());
        assert_eq!(rounds.get(), 3, "an old round says nothing to who asks now");
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_round_to_others() {
        let barriers = Barriers::default();
        tokio::select! {
            biased;
            _ = barriers.pass(std::future::pending) => panic!("it never ends"),
            () = yield_now() => {}
        }
        let failed = || async { Err(Unconfirmed { leader: None, reason: "as the test wants".into() }) };
        assert!(barriers.pass(failed).await.is_err());
        assert!(barriers.pass(|| async { Ok(()) }).await.is_ok());
    }
}
