//! Producer ids: handed out from blocks that the controller sets aside, so that most cost no commit.

use std::ops::Range;

use flotilla_machines::controller::ControllerAnswer;
use flotilla_proto::internal::v1::AllocateProducerIds;
use flotilla_proto::internal::v1::controller_command::Command;
use tokio::sync::Mutex;

use crate::broker::Broker;
use crate::error::{InitProducerError, NotServing};

/// Ids set aside at once. A restart loses what is left of a block; there are 2^63.
const BLOCK: u32 = 1_000;

/// What is left of this node's block.
#[derive(Default)]
pub(crate) struct ProducerIds {
    left: Mutex<Range<u64>>,
}

impl Broker {
    /// A producer id that nobody had before.
    ///
    /// # Errors
    /// See [`InitProducerError`].
    pub async fn init_producer(&self) -> Result<u64, InitProducerError> {
        // Held across the allocation, so that one block is fetched for all who wait.
        let mut left = self.producer_ids().left.lock().await;
        if let Some(id) = left.next() {
            return Ok(id);
        }
        let answer = self.control(Command::AllocateProducerIds(AllocateProducerIds { count: BLOCK })).await??;
        let ControllerAnswer::ProducerIds { first, count } = answer else {
            return Err(NotServing::NotReady { what: "the controller".into() }.into());
        };
        *left = first + 1..first + u64::from(count);
        Ok(first)
    }
}
