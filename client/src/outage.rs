//! Whether the cluster answers. Calls, producers and consumers retry by themselves; here they say how that goes.

use std::time::Instant;

use tokio::sync::watch;

use crate::error::Error;

/// What a client has met since something last worked.
#[derive(Debug, Clone)]
pub struct Outage {
    /// When the first attempt failed, or had not been answered for long.
    pub since: Instant,
    /// Why the last one did; [`Error::Timeout`] also while it is waited for.
    pub error: Error,
}

/// Shared by everything that one client does.
#[derive(Debug)]
pub(crate) struct Outages {
    present: watch::Sender<Option<Outage>>,
}

impl Default for Outages {
    fn default() -> Self {
        Self { present: watch::Sender::new(None) }
    }
}

impl Outages {
    pub fn watch(&self) -> watch::Receiver<Option<Outage>> {
        self.present.subscribe()
    }

    /// An attempt failed and is repeated.
    pub fn failed(&self, error: &Error) {
        self.present.send_modify(|present| {
            let since = present.as_ref().map_or_else(Instant::now, |outage| outage.since);
            *present = Some(Outage { since, error: error.clone() });
        });
    }

    /// The cluster answered.
    pub fn over(&self) {
        // Nearly always there is none, and a look is cheaper.
        if self.present.borrow().is_some() {
            self.present.send_replace(None);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn an_outage_begins_with_the_first_failure_and_names_the_last() {
        let outages = Outages::default();
        let watch = outages.watch();
        outages.failed(&Error::ConnectionLost { reason: "reset".to_owned() });
        let first = watch.borrow().clone().unwrap();
        outages.failed(&Error::Unreachable { addresses: "a:1".to_owned(), reason: "refused".to_owned() });
        let second = watch.borrow().clone().unwrap();
        assert_eq!(first.since, second.since);
        assert!(matches!(second.error, Error::Unreachable { .. }));
        outages.over();
        assert!(watch.borrow().is_none());
    }
}
