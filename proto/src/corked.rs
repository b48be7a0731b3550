//! Writes that wait a moment for others.
//!
//! Answers to calls that were committed together become ready one after the other, each by a task of its own that wakes the
//! connection: it would write each of them alone, and a write over loopback takes as long as all the rest of a small call.
//! So before a connection writes a little it lets the tasks run that are ready to, and then writes what all of them left.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

/// So much is worth a write of its own.
const LARGE_BYTES: usize = 16 << 10;

/// A transport that lets others go first, once in each turn of its connection. A turn ends when all that came is read.
#[derive(Debug)]
pub struct Corked<T> {
    inner: T,
    turn: Turn,
    /// Whoever has the other half of it knows when the connection is gone.
    _open: Option<Arc<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing was written yet.
    Begun,
    /// The others go first.
    Yielded,
    /// Whatever is there goes out.
    Writes,
}

impl<T> Corked<T> {
    /// Around a connected transport.
    pub fn new(inner: T) -> Self {
        Self { inner, turn: Turn::Begun, _open: None }
    }

    /// The same, keeping `open` for as long as it is open.
    pub fn keeping(self, open: Arc<()>) -> Self {
        Self { _open: Some(open), ..self }
    }

    fn take_turn(&mut self, bytes: usize, context: &Context<'_>) -> Poll<()> {
        if bytes >= LARGE_BYTES {
            return Poll::Ready(());
        }
        match self.turn {
            Turn::Begun => {
                self.turn = Turn::Yielded;
                // Behind all tasks that are ready now.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Turn::Yielded | Turn::Writes => {
                self.turn = Turn::Writes;
                Poll::Ready(())
            }
        }
    }
}

impl<T: Read + Unpin> Read for Corked<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(context, to);
        if read.is_pending() && self.turn == Turn::Writes {
            self.turn = Turn::Begun;
        }
        read
    }
}

impl<T: Write + Unpin> Write for Corked<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.take_turn(bytes.len(), context));
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.take_turn(slices.iter().map(|slice| slice.len()).sum(), context));
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use hyper::rt::ReadBuf;

    use super::*;

    /// Takes everything and has nothing to read.
    #[derive(Default)]
    struct Sink(Vec<usize>);

    impl Read for Sink {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl Write for Sink {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Case {
        corked: Corked<Sink>,
        woken: Arc<Woken>,
    }

    impl Case {
        fn write(&mut self, bytes: usize) -> bool {
            let waker = Waker::from(self.woken.clone());
            let written = Pin::new(&mut self.corked).poll_write(&mut Context::from_waker(&waker), &vec![0; bytes]);
            matches!(written, Poll::Ready(Ok(written)) if written == bytes)
        }

        fn read(&mut self) {
            let waker = Waker::from(self.woken.clone());
            let mut bytes = [0; 8];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut self.corked).poll_read(&mut Context::from_waker(&waker), buffer.unfilled());
            assert!(read.is_pending());
        }
    }

    #[test]
    fn little_lets_others_go_first_once_a_turn_and_is_woken_for_it() {
        let mut case = Case { corked: Corked::new(Sink::default()), woken: Arc::default() };
        for turn in 1..4 {
            case.read();
            assert!(!case.write(10), "the first write of a turn waits");
            assert_eq!(case.woken.0.load(Ordering::SeqCst), turn);
            case.read();
            assert!(case.write(20) && case.write(30), "and then nothing does");
            assert_eq!(case.woken.0.load(Ordering::SeqCst), turn);
        }
        assert_eq!(case.corked.inner.0, [20, 30].repeat(3));
    }

    #[test]
    fn much_goes_at_once() {
        let mut case = Case { corked: Corked::new(Sink::default()), woken: Arc::default() };
        case.read();
        assert!(case.write(LARGE_BYTES));
        assert!(!case.write(LARGE_BYTES - 1));
    }
}
