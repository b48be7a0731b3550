//! Opening links from either side, and running them until they end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::internal::v1::link_message::Message;
use flotilla_proto::internal::v1::raft_peer_client::RaftPeerClient;
use flotilla_proto::internal::v1::{Hello, LinkMessage};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::inbound::Inbound;
use super::link::Link;
use super::outbox::{Outbox, Outgoing};
use super::peers::Peers;
use super::service::MESSAGE_BYTES_MAX;
use super::wire::invalid;
use crate::types::NodeId;

/// How often what is in no hurry goes, or a probe if nothing did.
const TICK: Duration = Duration::from_millis(50);
/// A link over which nothing came for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// How long opening a link may take.
const OPEN_PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts to open one: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Dials `node` again and again until `stop`.
pub(super) async fn keep_dialing(peers: Peers, node: NodeId, address: String, stop: CancellationToken) {
    let mut pause = PAUSE_MIN;
    let mut said = None;
    loop {
        let opened = tokio::select! {
            () = stop.cancelled() => return,
            opened = tokio::time::timeout(OPEN_PATIENCE, open(&peers, node)) => opened,
        };
        match opened.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))) {
            Ok((link, incoming)) => {
                (pause, said) = (PAUSE_MIN, None);
                // Whoever stops the dialing closes the link, if it is to go.
                run(&peers, &link, incoming, &stop).await;
            }
            Err(error) => {
                let reason = error.to_string();
                if said.as_ref() != Some(&reason) {
                    tracing::info!(node = peers.node_id(), peer = node, address, reason, "no link yet");
                    said = Some(reason);
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = PAUSE_MAX.min(pause * 2),
        }
    }
}

async fn open(peers: &Peers, node: NodeId) -> io::Result<(Arc<Link>, Streaming<LinkMessage>)> {
    let channel = peers.connection(node).await?;
    let mut client =
        RaftPeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let outbox = Arc::new(Outbox::default());
    let outgoing = Outgoing::new(peers.hello(node), outbox.clone());
    let mut incoming = client.link(outgoing).await.map_err(status)?.into_inner();
    let hello = hello(&mut incoming).await?;
    let (peer, state) = peers.greeted(&hello)?;
    if peer != node {
        return Err(io::Error::other(format!("node {peer} answers there")));
    }
    Ok((Arc::new(Link::new(peer, state, outbox)), incoming))
}

/// Takes the other side's part: checks the greeting that came first, and runs the link beside.
pub(super) async fn accept(peers: Peers, mut incoming: Streaming<LinkMessage>) -> io::Result<Outgoing> {
    let hello = tokio::time::timeout(OPEN_PATIENCE, hello(&mut incoming)).await;
    let hello = hello.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the greeting did not come"))??;
    let (peer, state) = peers.greeted(&hello)?;
    if peer <= peers.node_id() {
        return Err(invalid("of two nodes, the one with the higher id dials"));
    }
    let outbox = Arc::new(Outbox::default());
    let outgoing = Outgoing::new(peers.hello(peer), outbox.clone());
    let link = Arc::new(Link::new(peer, state, outbox));
    let running = peers.clone();
    peers.tasks().spawn(async move {
        let stop = running.stopped().clone();
        run(&running, &link, incoming, &stop).await;
    });
    Ok(outgoing)
}

async fn hello(incoming: &mut Streaming<LinkMessage>) -> io::Result<Hello> {
    match incoming.message().await.map_err(status)?.and_then(|message| message.message) {
        Some(Message::Hello(hello)) => Ok(hello),
        _ => Err(invalid("a link begins with a greeting")),
    }
}

/// Runs an open link until it ends.
async fn run(peers: &Peers, link: &Arc<Link>, incoming: Streaming<LinkMessage>, stop: &CancellationToken) {
    peers.opened(link);
    let reason = tokio::select! {
        biased;
        () = stop.cancelled() => "this node closes it".to_owned(),
        () = link.closed.cancelled() => "it was replaced, or its peer reads too slowly".to_owned(),
        () = tick(link) => String::new(),
        ended = read(peers, link, incoming) => ended.map_or_else(|error| error.to_string(), |()| "its peer closed it".to_owned()),
    };
    peers.ended(link, &reason);
}

async fn tick(link: &Link) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        link.outbox.tick();
    }
}

async fn read(peers: &Peers, link: &Arc<Link>, mut incoming: Streaming<LinkMessage>) -> io::Result<()> {
    let mut inbound = Inbound::new(peers.clone(), link.clone());
    loop {
        let message = tokio::time::timeout(SILENCE_MAX, incoming.message()).await;
        let message = message.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "its peer is silent"))?;
        match message.map_err(status)? {
            None => return Ok(()),
            Some(LinkMessage { message: Some(Message::Frames(frames)) }) => inbound.take(frames.frames).await?,
            Some(_) => return Err(invalid("only frames come after the greeting")),
        }
    }
}

/// What a peer's gRPC said.
pub(super) fn status(status: Status) -> io::Error {
    io::Error::other(format!("{}: {}", status.code(), status.message()))
}
