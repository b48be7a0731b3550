//! One TCP connection to a node, made once. A channel connects again by itself when its connection breaks, and whoever
//! answers at the address by then may be a node of another cluster: so the second attempt fails, and the connection is
//! opened anew, and looked at, by whoever needs it.

use std::sync::{Arc, Weak};

use flotilla_proto::corked::Corked;
use hyper_util::client::legacy::connect::HttpConnector;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

use crate::error::innermost;

/// Whether a connection is still open.
#[derive(Debug, Clone)]
pub(crate) struct Line(Weak<()>);

impl Line {
    pub fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// What a channel says whose connection is gone: the request was not sent.
#[derive(Debug, thiserror::Error)]
#[error("the connection has ended")]
struct Ended;

/// Connects.
///
/// # Errors
/// Why not, in words.
pub(crate) async fn connect(endpoint: Endpoint, connector: HttpConnector) -> Result<(Channel, Line), String> {
    let open = Arc::new(());
    let line = Line(Arc::downgrade(&open));
    let mut once = Some(open);
    let connect = tower::service_fn(move |uri| {
        let (once, connector) = (once.take().ok_or(Ended), connector.clone());
        async move {
            let open = once?;
            let stream = connector.oneshot(uri).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Corked::new(stream).keeping(open))
        }
    });
    match endpoint.connect_with_connector(connect).await {
        Ok(channel) => Ok((channel, line)),
        Err(error) => Err(innermost(&error)),
    }
}
