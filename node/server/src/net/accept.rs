//! Accepts connections and serves each in a task of its own.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::slots::{Slot, Slots};

/// How long nothing is accepted after the system had no resources for a connection.
const BACKOFF: Duration = Duration::from_millis(200);

/// Serves every connection that gets a slot until `shutdown`, then returns when those that are open have ended. Dropping
/// the future closes them all.
pub async fn accept<F>(
    listener: TcpListener,
    slots: &Arc<Slots>,
    shutdown: impl Future<Output = ()>,
    serve: impl Fn(TcpStream, Arc<Slot>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut not_before = Instant::now();
    loop {
        let next = async {
            tokio::time::sleep_until(not_before).await;
            listener.accept().await
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            next = next => match next {
                Ok((stream, _)) => {
                    // Without a slot the connection is closed at once.
                    if let Some(slot) = slots.admit() {
                        connections.spawn(serve(stream, Arc::new(slot)));
                    }
                }
                Err(error) if lacks_resources(&error) => {
                    tracing::warn!(%error, "a connection could not be accepted: raise the limit of open files (ulimit -n), or lower connections_max");
                    not_before = Instant::now() + BACKOFF;
                }
                // The client was gone before its connection was accepted.
                Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The connection stays in the listener's queue: trying again at once would turn in circles.
fn lacks_resources(error: &io::Error) -> bool {
    let lacking = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| lacking.contains(&errno))
}
