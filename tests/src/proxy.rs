//! A TCP line that breaks when it is told to, and counts what goes through it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

const CHUNK_BYTES: usize = 64 << 10;

/// Passes connections on to a server. It goes on until the process ends.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    to: SocketAddr,
    /// Bytes on their way to the server, of all connections.
    forwarded: AtomicU64,
    /// After so many of them, the connection that carried the last one breaks.
    cuts: Mutex<VecDeque<u64>>,
    /// The client's end of every connection so far; none while the line is broken.
    clients: Mutex<Option<Vec<TcpStream>>>,
}

impl Proxy {
    /// In front of the server at `to`, which need not be there yet.
    ///
    /// # Panics
    /// If there is no port.
    #[must_use]
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let clients = Mutex::new(Some(Vec::new()));
        let line = Arc::new(Line { to, forwarded: AtomicU64::new(0), cuts: Mutex::default(), clients });
        let passing = line.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let line = passing.clone();
                // A client of a server that is not there is hung up on.
                thread::spawn(move || line.pass(&client));
            }
        });
        Self { address, line }
    }

    /// Where clients reach the server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that went to the server so far.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.line.forwarded.load(Ordering::Relaxed)
    }

    /// From now on a connection breaks each time when this many more bytes, counted from now, have gone to the server.
    pub fn cut_after(&self, bytes: &[u64]) {
        let from = self.forwarded();
        self.line.cuts().extend(bytes.iter().map(|more| from + more));
    }

    /// Breaks every connection, and each that comes before it is mended.
    ///
    /// # Panics
    /// If it is broken already.
    pub fn break_off(&self) {
        let open = self.line.clients().take().expect("it is broken already");
        // They may have ended.
        open.iter().for_each(|client| drop(client.shutdown(Shutdown::Both)));
    }

    /// Takes connections again.
    pub fn mend(&self) {
        *self.line.clients() = Some(Vec::new());
    }

    /// Cuts that are still to come.
    #[must_use]
    pub fn cuts_left(&self) -> usize {
        self.line.cuts().len()
    }
}

impl Line {
    fn cuts(&self) -> std::sync::MutexGuard<'_, VecDeque<u64>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, Option<Vec<TcpStream>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, client: &TcpStream) -> io::Result<()> {
        match &mut *self.clients() {
            Some(open) => open.push(client.try_clone()?),
            None => return Ok(()),
        }
        let server = TcpStream::connect(self.to)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        thread::scope(|scope| {
            scope.spawn(|| pump(&server, client, |_| false));
            pump(client, &server, |bytes| self.is_cut(bytes));
        });
        Ok(())
    }

    /// Counts; whether the line breaks here.
    fn is_cut(&self, bytes: usize) -> bool {
        let forwarded = self.forwarded.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let mut cuts = self.cuts();
        let now = cuts.front().is_some_and(|at| forwarded >= *at);
        if now {
            cuts.pop_front();
        }
        now
    }
}

/// Copies until either side ends or `cut` says so of what was copied; then both connections end.
fn pump(mut from: &TcpStream, mut to: &TcpStream, cut: impl Fn(usize) -> bool) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut chunk).unwrap_or(0);
        if read == 0 || to.write_all(&chunk[..read]).is_err() || cut(read) {
            break;
        }
    }
    // They may have ended already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
