//! Whether the node is drained: readiness follows the cluster's metadata, so that load balancers go elsewhere.

use std::convert::Infallible;

use flotilla_broker::{Broker, Image, NodeState};
use tokio::sync::watch;

use crate::telemetry::http::Phase;

/// Keeps the phase of a node that has become ready as the metadata says. Never returns.
pub async fn follow(broker: &Broker, phase: &watch::Sender<Phase>) -> Infallible {
    let mut image = broker.watch_image();
    loop {
        let drained = is_drained(&image.borrow_and_update(), broker.node_id());
        phase.send_if_modified(|phase| turn(phase, drained));
        if image.changed().await.is_err() {
            // The broker is closed: the phase is that of a node that stops.
            std::future::pending().await
        }
    }
}

/// A node that is leaving leads nothing either. One that is not registered yet is about to be.
fn is_drained(image: &Image, node_id: u64) -> bool {
    image.node(node_id).is_some_and(|node| matches!(node.state, NodeState::Draining | NodeState::Leaving))
}

/// Changes only a node that serves; says whether it did.
fn turn(phase: &mut Phase, drained: bool) -> bool {
    let next = match (*phase, drained) {
        (Phase::Ready, true) => Phase::Draining,
        (Phase::Draining, false) => Phase::Ready,
        (same, _) => same,
    };
    std::mem::replace(phase, next) != next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_serves_is_turned() {
        for (before, drained, after) in [
            (Phase::Starting, true, Phase::Starting),
            (Phase::Ready, true, Phase::Draining),
            (Phase::Ready, false, Phase::Ready),
            (Phase::Draining, true, Phase::Draining),
            (Phase::Draining, false, Phase::Ready),
            (Phase::Stopping, false, Phase::Stopping),
            (Phase::Stopping, true, Phase::Stopping),
        ] {
            let mut phase = before;
            assert_eq!(turn(&mut phase, drained), before != after, "{before:?}");
            assert_eq!(phase, after);
        }
    }
}
