//! A leader takes proposals only while a quorum has answered it lately. A new one was not answered yet, and one that
//! was alone for a while has to ask: proposals wait for that instead of being sent away.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, ServerState};
use tokio::time::Instant;

use crate::group::Raft;
use crate::network::Urgency;

/// An answer that is older than this is asked for again: well before openraft's own lease ends.
const FRESH: Duration = Duration::from_secs(5);
/// How long proposals wait for it. Then openraft says that nobody leads.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two heartbeats that ask for it.
const AGAIN: Duration = Duration::from_millis(100);

/// Returns when a quorum has answered this leader lately; at once if it does not lead; and after a while in any case.
pub(crate) async fn confirmed(raft: &Raft, urgency: &Urgency) {
    if !wants_answer(raft) {
        return;
    }
    let _urgent = urgency.begin();
    let deadline = Instant::now() + PATIENCE;
    let mut metrics = raft.data_metrics();
    let mut asks = Instant::now();
    while wants_answer(raft) && Instant::now() < deadline {
        if Instant::now() >= asks {
            asks = Instant::now() + AGAIN;
            if raft.trigger().heartbeat().await.is_err() {
                return;
            }
        }
        let changed = tokio::time::timeout_at(asks.min(deadline), metrics.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            return;
        }
    }
}

/// Whether this node leads with others, and has not heard of them lately.
fn wants_answer(raft: &Raft) -> bool {
    let server = raft.server_metrics();
    let server = server.borrow_watched();
    let alone = || server.membership_config.membership().voter_ids().nth(1).is_none();
    if server.state != ServerState::Leader || alone() {
        return false;
    }
    let data = raft.data_metrics();
    let data = data.borrow_watched();
    data.last_quorum_acked.as_ref().is_none_or(|acked| acked.elapsed() > FRESH)
}
