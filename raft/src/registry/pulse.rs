//! The heartbeats of all groups that this node leads.
//!
//! openraft's own clock is off: it would wake two tasks of each group twice a second, each at its own moment, and a
//! thousand groups at rest would cost a tenth of a core. One clock for all of them wakes nobody but the leaders, many at
//! a time, so that their heartbeats travel together. What followers need a clock for is in `elections.rs`.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Groups;
use crate::group::Group;

/// Between two heartbeats of a group.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(2_500);
/// Groups take turns within that time, so that nothing else waits for all of them.
const TURNS: u32 = 10;

/// Sends heartbeats until `stop`.
pub(super) async fn run(groups: Arc<Groups>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(HEARTBEAT / TURNS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in (0..TURNS).cycle() {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => beat(&groups, turn),
        }
    }
}

fn beat(groups: &Groups, turn: u32) {
    groups.for_each_running(|group| {
        let theirs = group.id().0 % u64::from(TURNS) == u64::from(turn);
        if theirs && leads_others(group) {
            // A core that has no room for this has more urgent things to tell its followers; one that died tells nobody.
            let _ = group.raft().trigger().heartbeat().now_or_never();
        }
    });
}

fn leads_others(group: &Group) -> bool {
    let standing = group.standing();
    let membership = &standing.borrow().membership;
    membership.voters.len() + membership.learners.len() > 1 && group.is_leader()
}
