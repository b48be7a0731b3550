//! The one flag that says that this node's storage can no longer be trusted.
//!
//! A failed write or sync is final. Whoever sees one sets the flag; nothing is acknowledged afterwards, and the
//! owner of the host closes it and opens it again from the disk.

use tokio::sync::watch;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Failure {
    reason: watch::Sender<Option<String>>,
}

impl Failure {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new() -> Self {
        Self { reason: watch::Sender::new(None) }
    }

    /// Sets the flag. The first reason stays.
    pub fn set(&self, reason: String) {
        self.reason.send_if_modified(|current| {
            if current.is_some() {
                return false;
            }
            tracing::error!(%reason, "storage failed: nothing is acknowledged until it is opened again from disk");
            *current = Some(reason);
            true
        });
    }

    /// Why, if something failed.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Returns when something has failed.
    pub async fn wait(&self) -> String {
        let mut watched = self.reason.subscribe();
        match watched.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the host is gone".into(),
        }
    }
}

impl Default for Failure {
    fn default() -> Self {
        Self::new()
    }
}
