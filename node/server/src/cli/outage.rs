//! Says on stderr that a command waits for a cluster that does not answer, and when it does again: a command that works
//! at a prompt must not be silent for long.

use std::time::Duration;

use flotilla_client::{Client, Error, Outage};
use tokio::sync::watch;

/// Shorter ones are not worth a line: a leader that moves, a node that is restarted.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches what `client` meets as long as there is one. Lines go to `say`.
pub fn tell(client: &Client, say: impl Fn(&str) + Send + Sync + 'static) {
    tokio::spawn(follow(client.outage(), PATIENCE, say));
}

async fn follow(mut outages: watch::Receiver<Option<Outage>>, patience: Duration, say: impl Fn(&str)) {
    // It ends with the client.
    while outages.wait_for(Option::is_some).await.is_ok() {
        let ended = tokio::time::timeout(patience, outages.wait_for(Option::is_none)).await.is_ok();
        let present = outages.borrow().clone();
        if let Some(outage) = present.filter(|_| !ended) {
            say(&words(&outage.error));
            if outages.wait_for(Option::is_none).await.is_ok() {
                say("the cluster answers again");
            }
        }
    }
}

fn words(error: &Error) -> String {
    match error {
        Error::Unreachable { addresses, reason } => format!("cannot reach {addresses} ({reason}), retrying"),
        Error::ConnectionLost { reason } => format!("the connection broke ({reason}), retrying"),
        Error::Timeout(_) => "no answer so far, waiting".to_owned(),
        other => format!("{other}, retrying"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use std::time::Instant;

    use tokio::sync::mpsc;

    use super::*;

    fn refused() -> Option<Outage> {
        let error = Error::Unreachable { addresses: "a:1".to_owned(), reason: "refused".to_owned() };
        Some(Outage { since: Instant::now(), error })
    }

    fn lines() -> (impl Fn(&str), mpsc::Receiver<String>) {
        let (lines, said) = mpsc::channel(16);
        (move |line: &str| lines.try_send(line.to_owned()).unwrap(), said)
    }

    #[tokio::test]
    async fn a_long_outage_is_told_once_and_so_is_its_end() {
        let (outages, watch) = watch::channel(refused());
        let (say, mut said) = lines();
        let following = tokio::spawn(follow(watch, Duration::ZERO, say));
        assert_eq!(said.recv().await.unwrap(), "cannot reach a:1 (refused), retrying");
        outages.send_replace(refused());
        tokio::task::yield_now().await;
        outages.send_replace(None);
        assert_eq!(said.recv().await.unwrap(), "the cluster answers again");
        drop(outages);
        following.await.unwrap();
        assert!(said.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_short_one_is_not_told() {
        let (outages, watch) = watch::channel(refused());
        let (say, mut said) = lines();
        let following = tokio::spawn(follow(watch, Duration::from_secs(3600), say));
        tokio::task::yield_now().await;
        outages.send_replace(None);
        drop(outages);
        following.await.unwrap();
        assert!(said.recv().await.is_none());
    }
}
