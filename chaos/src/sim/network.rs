//! The simulated network as nodes see it: connections over turmoil.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use flotilla_raft::network::Dialer;
use futures::Stream;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;
use turmoil::net::{TcpListener, TcpStream};

/// Dials over the simulated network.
#[derive(Debug, Clone, Copy)]
pub struct SimDialer;

/// A connection that was accepted.
pub struct Accepted(TcpStream);

impl Dialer for SimDialer {
    fn dial(&self, endpoint: Endpoint) -> BoxFuture<'static, io::Result<Channel>> {
        Box::pin(async move { endpoint.connect_with_connector(connector()).await.map_err(io::Error::other) })
    }

    fn dial_lazily(&self, endpoint: Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(connector())
    }
}

fn connector() -> impl Service<Uri, Response = TokioIo<TcpStream>, Error = io::Error, Future: Send> + Clone + Send + Sync + 'static
{
    tower::service_fn(|uri: Uri| async move {
        let address = uri.authority().map(ToString::to_string);
        let address = address.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an address without a host"))?;
        TcpStream::connect(address).await.map(TokioIo::new)
    })
}

/// The connections that `listener` accepts.
pub fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Accepted>> {
    futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Accepted(stream));
        Some((accepted, listener))
    })
}

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
