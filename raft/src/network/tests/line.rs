//! One direction of the network between two nodes, in the hands of the test: it can be slow, cut, or break after some
//! bytes. A port of its own, behind which the real one is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Connections from one node to another.
pub(super) struct Line {
    pub(super) address: String,
    control: Arc<Control>,
}

struct Control {
    /// Rises when all connections are to break; `None`: nobody gets through.
    life: watch::Sender<Option<u64>>,
    delay: Duration,
    /// Bytes that went towards the target.
    sent: AtomicU64,
    breaks_at: AtomicU64,
}

impl Line {
    pub(super) async fn to(target: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let control = Arc::new(Control {
            life: watch::Sender::new(Some(0)),
            delay,
            sent: AtomicU64::new(0),
            breaks_at: AtomicU64::new(u64::MAX),
        });
        tokio::spawn(accept(listener, target, control.clone()));
        Self { address, control }
    }

    /// Breaks what is connected, and lets nobody through.
    pub(super) fn cut(&self) {
        self.control.life.send_replace(None);
    }

    pub(super) fn mend(&self) {
        self.control.life.send_if_modified(|life| life.is_none().then(|| *life = Some(0)).is_some());
    }

    /// Everything breaks once, when so many bytes more went through.
    pub(super) fn break_after(&self, bytes: u64) {
        self.control.breaks_at.store(self.sent() + bytes, Ordering::SeqCst);
    }

    /// Bytes that went towards the target.
    pub(super) fn sent(&self) -> u64 {
        self.control.sent.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, target: u16, control: Arc<Control>) {
    let mut connections = JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        let Some(life) = *control.life.borrow() else { continue };
        let control = control.clone();
        connections.spawn(async move {
            let Ok(to) = TcpStream::connect(("127.0.0.1", target)).await else { return };
            from.set_nodelay(true).unwrap();
            to.set_nodelay(true).unwrap();
            let (from_read, from_write) = from.into_split();
            let (to_read, to_write) = to.into_split();
            let mut lives = control.life.subscribe();
            tokio::select! {
                () = pump(from_read, to_write, &control, true) => {}
                () = pump(to_read, from_write, &control, false) => {}
                _ = lives.wait_for(|now| *now != Some(life)) => {}
            }
        });
    }
}

/// What comes in goes out after the delay, in order.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    control: &Control,
    forward: bool,
) {
    let (tx, mut rx) = mpsc::channel::<(Instant, Vec<u8>)>(10_000);
    let read = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if forward {
                let sent = control.sent.fetch_add(count as u64, Ordering::SeqCst) + count as u64;
                if sent >= control.breaks_at.load(Ordering::SeqCst) {
                    control.breaks_at.store(u64::MAX, Ordering::SeqCst);
                    control.life.send_modify(|life| *life = life.map(|life| life + 1));
                }
            }
            if tx.send((Instant::now() + control.delay, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((at, bytes)) = rx.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
