//! The first bytes of an HTTP/2 connection. They are read here, because the HTTP/2 server waits for them without end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What every client says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long it may take to say so.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection whose client has said that it speaks HTTP/2. Reading begins with that.
#[derive(Debug)]
pub struct Greeted<S> {
    unread: &'static [u8],
    stream: S,
}

/// Waits for the client's first words. `None`: it said something else, or nothing in time.
pub async fn greet<S: AsyncRead + Unpin>(stream: S) -> Option<Greeted<S>> {
    greet_within(PATIENCE, stream).await
}

async fn greet_within<S: AsyncRead + Unpin>(patience: Duration, mut stream: S) -> Option<Greeted<S>> {
    match tokio::time::timeout(patience, is_greeted(&mut stream)).await {
        Ok(Ok(true)) => Some(Greeted { unread: PREFACE, stream }),
        Ok(Ok(false) | Err(_)) | Err(_) => None,
    }
}

async fn is_greeted(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
    let mut expected = PREFACE.as_slice();
    let mut buffer = [0; PREFACE.len()];
    while !expected.is_empty() {
        let (room, _) = buffer.split_at_mut(expected.len());
        let read = stream.read(room).await?;
        let Some(rest) = room.get(..read).filter(|said| !said.is_empty()).and_then(|said| expected.strip_prefix(said)) else {
            return Ok(false);
        };
        expected = rest;
    }
    Ok(true)
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let (now, later) = self.unread.split_at(self.unread.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_a_client_says_first_is_still_there_to_be_read() {
        let (mut client, server) = tokio::io::duplex(7);
        let talk = tokio::spawn(async move {
            client.write_all(PREFACE).await.unwrap();
            client.write_all(b"more").await.unwrap();
        });
        let mut said = Vec::new();
        greet(server).await.unwrap().read_to_end(&mut said).await.unwrap();
        assert_eq!(said, [PREFACE.as_slice(), b"more"].concat());
        talk.await.unwrap();
    }

    #[tokio::test]
    async fn anything_else_is_not_waited_for() {
        for words in ["GET / HTTP/1.1\r\n", "PRI * HTTP/1", "x"] {
            let (mut client, server) = tokio::io::duplex(64);
            client.write_all(words.as_bytes()).await.unwrap();
            assert!(greet(server).await.is_none(), "{words}");
        }
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        assert!(greet(server).await.is_none());
    }

    #[tokio::test]
    async fn silence_is_not_waited_for_without_end() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(&PREFACE[..20]).await.unwrap();
        assert!(greet_within(Duration::from_millis(10), server).await.is_none());
    }
}
