//! Waiting at a prompt until the cluster has done what it was told to do.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::exit::CliError;
use super::output::note;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Between two lines that say how far it is, where stderr is no terminal.
const SAY_INTERVAL: Duration = Duration::from_secs(2);

/// What a look has shown.
#[derive(Debug)]
pub enum Seen<T> {
    /// It is done.
    Done(T),
    /// It is not; how far it is, in words.
    NotYet(String),
}

/// Looks again and again until `what` (a sentence) is so. Tells on a terminal how far it is. Nodes that do not answer
/// for a moment are asked again: the command that was given is carried out all the same.
///
/// # Errors
/// Once `timeout` has passed, on Ctrl-C, or when a look fails for good.
pub async fn until<T>(
    what: &str,
    timeout: Duration,
    mut look: impl AsyncFnMut() -> Result<Seen<T>, CliError>,
) -> Result<T, CliError> {
    let deadline = Instant::now() + timeout;
    let terminal = io::stderr().is_terminal();
    let progress = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let mut said = (Instant::now(), String::new());
    loop {
        let looked = tokio::select! {
            looked = look() => looked,
            _ = tokio::signal::ctrl_c() => return Err(CliError::Interrupted),
        };
        let so_far = match looked {
            Ok(Seen::Done(done)) => {
                progress.finish_and_clear();
                return Ok(done);
            }
            Ok(Seen::NotYet(so_far)) => so_far,
            Err(CliError::Client(error)) if error.is_retriable() => error.to_string(),
            Err(error) => return Err(error),
        };
        if Instant::now() >= deadline {
            let seconds = timeout.as_secs_f64();
            let message = format!(
                "not so within {seconds} s: {what}; {so_far}. The cluster goes on with it; wait longer with --timeout, \
                         or take it back"
            );
            return Err(CliError::Failed(message));
        }
        if !terminal && said.1 != so_far && said.0.elapsed() >= SAY_INTERVAL {
            note(format_args!("waiting: {so_far}"));
            said = (Instant::now(), so_far.clone());
        }
        progress.set_message(so_far);
        progress.tick();
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            _ = tokio::signal::ctrl_c() => return Err(CliError::Interrupted),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use flotilla_client::Error;

    use super::*;

    #[tokio::test]
    async fn it_looks_until_it_is_done() {
        let mut looks = 0;
        let done = until("it is so", Duration::from_secs(60), async || {
            looks += 1;
            match looks {
                1 => Err(Error::Unreachable { addresses: String::new(), reason: String::new() }.into()),
                2 => Ok(Seen::NotYet("half".to_owned())),
                _ => Ok(Seen::Done(7)),
            }
        });
        assert_eq!(done.await.unwrap(), 7);
        assert_eq!(looks, 3);
    }

    #[tokio::test]
    async fn it_gives_up_and_says_how_far_it_is() {
        let never = until::<()>("node 2 is gone", Duration::ZERO, async || Ok(Seen::NotYet("5 replicas left".to_owned())));
        let said = never.await.unwrap_err().to_string();
        assert!(said.contains("node 2 is gone") && said.contains("5 replicas left"), "{said}");
        let refused = until::<()>("x", Duration::from_secs(60), async || Err(CliError::Failed("no".to_owned())));
        assert_eq!(refused.await.unwrap_err().to_string(), "no");
    }
}
