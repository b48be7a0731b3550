//! Any node serves any request: what it does not lead it passes on to the node that does, and while nobody does it waits,
//! so that a plain client sees a pause and no error. Written once here, for all services.
//!
//! A request that was passed on is marked ([`flotilla_proto::DIRECT`]) and never passed on again. Whether a request may
//! be sent a second time is said by [`Repeat`]: what may have taken effect is repeated only where that is harmless.

mod channels;
mod directory;
mod split;
mod target;
mod topics;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_proto::{CLUSTER_ID, DIRECT};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Request, Response, Status};

pub use channels::{Connection, innermost};
pub use directory::Directory;
pub use target::Target;
pub use topics::partitions;

use super::call::Call;
use super::load::Budget;
use super::problem::{Problem, Reason};
use channels::Channels;

/// Sends `$request`, as it is, by `$stub::$method` to the node that [`Gateway::at_leader`] chooses.
macro_rules! verbatim {
    ($gateway:expr, $stub:ident :: $method:ident($request:expr)) => {
        |channel, envelope: $crate::grpc::forward::Envelope| {
            let (request, bytes_max) = (envelope.around($request), $gateway.message_bytes_max());
            async move { $stub::new(channel).max_decoding_message_size(bytes_max).$method(request).await }
        }
    };
}
pub(super) use verbatim;

/// Between two looks at who leads.
pub const PAUSE: Duration = Duration::from_millis(20);

/// Passes requests on to leaders. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Arc<dyn Directory>,
    channels: Arc<Channels>,
    message_bytes_max: usize,
    /// The cluster, for those who serve what is passed on.
    cluster_id: Option<MetadataValue<Ascii>>,
    /// What waits for a leader holds bytes of it.
    received: Arc<Budget>,
}

/// Who is to serve a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leader {
    /// This node.
    Here,
    /// This other node, at this address.
    There(u64, String),
    /// Nobody that could be reached at the moment.
    Nobody,
}

/// What may be done with a request whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It changes nothing: send it again.
    Read,
    /// As `Read`, and where nobody can lead, what is committed may be read from any replica.
    ReadCommitted,
    /// Twice is the same as once, but what a repetition says about it holds only if it succeeds.
    Idempotent,
    /// Never send it again.
    Once,
}

impl Repeat {
    fn is_read(self) -> bool {
        matches!(self, Self::Read | Self::ReadCommitted)
    }
}

/// What a request that is passed on carries besides its message.
#[derive(Debug, Clone)]
pub struct Envelope {
    cluster_id: Option<MetadataValue<Ascii>>,
    deadline: Option<Instant>,
}

impl Envelope {
    /// The message as it goes to another node: of this cluster, not to be passed on again, with the time that is left.
    pub fn around<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(DIRECT, MetadataValue::from_static("1"));
        if let Some(cluster_id) = self.cluster_id {
            request.metadata_mut().insert(CLUSTER_ID, cluster_id);
        }
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        request
    }
}

impl Gateway {
    /// `message_bytes_max` bounds what is accepted from other nodes as one message; `received` counts requests.
    pub fn new(directory: Arc<dyn Directory>, message_bytes_max: usize, received: Arc<Budget>) -> Self {
        // A UUID is a value of metadata.
        let cluster_id = MetadataValue::try_from(directory.cluster_id()).ok();
        Self { inner: Arc::new(Inner { directory, channels: Arc::default(), message_bytes_max, cluster_id, received }) }
    }

    /// For a request that is to be answered by `deadline`, or whenever its answer comes.
    pub fn envelope(&self, deadline: Option<Instant>) -> Envelope {
        Envelope { cluster_id: self.inner.cluster_id.clone(), deadline }
    }

    /// Whether requests hold so much that none of them should wait with its records until somebody leads: half of the room is
    /// for those that can be served.
    pub fn is_pressed(&self) -> bool {
        self.inner.received.is_half_used()
    }

    /// Largest message to accept from another node.
    pub fn message_bytes_max(&self) -> usize {
        self.inner.message_bytes_max
    }

    /// Who leads, as far as is known here.
    pub fn leader(&self, target: &Target) -> Leader {
        let directory = &self.inner.directory;
        let leader = match target {
            Target::Partition { group_id, .. } => directory.leader_of(*group_id),
            Target::Controller => directory.controller_leader(),
        };
        self.reachable(leader)
    }

    /// As [`Gateway::leader`], of a partition's group.
    pub fn leader_of(&self, group_id: u64) -> Leader {
        self.reachable(self.inner.directory.leader_of(group_id))
    }

    /// A node that may be asked in place of the leader: any other that can be reached.
    pub fn replica(&self, nodes: impl Iterator<Item = u64>) -> Leader {
        let mut found = nodes.map(|node| self.reachable(Some(node)));
        found.find(|leader| matches!(leader, Leader::There(..))).unwrap_or(Leader::Nobody)
    }

    fn reachable(&self, leader: Option<u64>) -> Leader {
        let directory = &self.inner.directory;
        match leader {
            Some(node) if node == directory.node_id() => Leader::Here,
            // A node whose link is down has died or is cut off: another is elected in less time than it takes to find out.
            Some(node) if directory.is_online(node) => match directory.peer_address(node) {
                Some(address) => Leader::There(node, address),
                None => Leader::Nobody,
            },
            _ => Leader::Nobody,
        }
    }

    /// What to say if the leader is not here and the request must not be passed on, or nobody leads.
    pub fn not_leader(&self, target: &Target) -> Problem {
        let directory = &self.inner.directory;
        let leader = match target {
            Target::Partition { group_id, .. } => directory.leader_of(*group_id),
            Target::Controller => directory.controller_leader(),
        };
        match leader.filter(|node| *node != directory.node_id() && directory.is_online(*node)) {
            Some(node) => {
                let message = format!("node {node} leads {target}, and this one cannot pass requests on to it: ask it, or retry");
                let problem = Problem::new(Reason::NotLeader, message).with("leader", node);
                match directory.client_address(node) {
                    Some(address) => problem.with("leader_address", address),
                    None => problem,
                }
            }
            None => {
                let names: Vec<String> = directory.missing(target).iter().map(|node| format!("node {node}")).collect();
                let help = match names.is_empty() {
                    true => "one is about to be elected: retry".to_owned(),
                    false => format!("most of its replicas must be online to elect one, offline are {}: retry", names.join(", ")),
                };
                Problem::new(Reason::NotLeader, format!("{target} has no leader at the moment; {help}"))
            }
        }
    }

    /// Why nobody will ever lead the target again: its topic was deleted.
    pub fn gone(&self, target: &Target) -> Option<Problem> {
        self.inner.directory.gone(target).map(Problem::from)
    }

    /// The connection to a node.
    ///
    /// # Errors
    /// Why there is none; nothing was sent then.
    pub async fn connection(&self, node_id: u64, address: &str) -> Result<Connection, Problem> {
        let connection = self.inner.channels.get(node_id, address).await;
        connection.map_err(|reason| Problem::new(Reason::NotLeader, format!("{reason}: retry")))
    }

    /// Breaks connections to nodes whose links go down, for as long as links are told of. `links` are those that are up.
    pub fn follow_links<L: Send + Sync + 'static>(&self, links: watch::Receiver<BTreeMap<u64, L>>) -> JoinHandle<()> {
        // Not by the gateway, which would keep the broker open.
        tokio::spawn(self.inner.channels.clone().follow_links(links))
    }

    /// Drops a connection that broke.
    pub fn forget(&self, connection: &Connection) {
        self.inner.channels.forget(connection);
    }

    /// Lets the target's leader answer: `here` if that is this node, `there` with the message to send to it otherwise.
    /// Waits for a leader, and follows it, as long as the call's patience lasts; what writes waits only where there is room.
    ///
    /// # Errors
    /// What the leader says, as it says it; why there is none; or that the outcome is not known.
    pub async fn at_leader<T, Here, There>(
        &self,
        call: Call,
        target: &Target,
        repeat: Repeat,
        here: impl Fn() -> Here,
        there: impl Fn(Channel, Envelope) -> There,
    ) -> Result<T, Problem>
    where
        Here: Future<Output = Result<T, Problem>>,
        There: Future<Output = Result<Response<T>, Status>>,
    {
        let mut doubt = None;
        loop {
            let served = match self.leader(target) {
                Leader::Here => here().await,
                Leader::There(node, address) if !call.direct => {
                    // A call to another node takes kilobytes of state, which one that is served here need not carry.
                    Box::pin(self.pass_on(call, (target, repeat), (node, &address), &there)).await
                }
                Leader::Nobody if repeat == Repeat::ReadCommitted => here().await,
                Leader::There(..) | Leader::Nobody => Err(self.not_leader(target)),
            };
            let problem = match served {
                Ok(answer) => return Ok(answer),
                Err(problem) => problem,
            };
            let broken = problem.reason() == Reason::OutcomeUnknown && repeat != Repeat::Once;
            if problem.is_passing()
                && let Some(gone) = self.gone(target)
            {
                return Err(doubt.unwrap_or(gone));
            }
            let again = !call.direct && (problem.is_passing() || broken);
            if problem.is_unknown() && repeat == Repeat::Idempotent {
                doubt = Some(problem.clone());
            }
            let may_wait = repeat.is_read() || !self.is_pressed();
            if !again || !may_wait || Instant::now() + PAUSE >= call.patient_until {
                return Err(doubt.unwrap_or(problem));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets a node answer for the target that only it has, whether it leads or not. Asks once.
    ///
    /// # Errors
    /// What the node says; that it is offline; or that the outcome is not known.
    pub async fn at_node<T, Here, There>(
        &self,
        call: Call,
        (node, target): (u64, &Target),
        here: impl Fn() -> Here,
        there: impl Fn(Channel, Envelope) -> There,
    ) -> Result<T, Problem>
    where
        Here: Future<Output = Result<T, Problem>>,
        There: Future<Output = Result<Response<T>, Status>>,
    {
        match self.reachable(Some(node)) {
            Leader::Here => here().await,
            Leader::There(node, address) if !call.direct => {
                self.pass_on(call, (target, Repeat::Once), (node, &address), &there).await
            }
            Leader::There(..) | Leader::Nobody => {
                Err(Problem::new(Reason::Unavailable, format!("node {node}, which has {target}, is offline: start it")))
            }
        }
    }

    async fn pass_on<T, There>(
        &self,
        call: Call,
        (target, repeat): (&Target, Repeat),
        (node, address): (u64, &str),
        there: &impl Fn(Channel, Envelope) -> There,
    ) -> Result<T, Problem>
    where
        There: Future<Output = Result<Response<T>, Status>>,
    {
        let connection = self.connection(node, address).await?;
        let answer = there(connection.channel.clone(), self.envelope(call.deadline)).await;
        answer.map(Response::into_inner).map_err(|status| self.failed(&connection, target, repeat, &status))
    }

    /// What a status means that came from another node, or from the connection to it.
    pub fn failed(&self, connection: &Connection, target: &dyn fmt::Display, repeat: Repeat, status: &Status) -> Problem {
        if let Some(problem) = Problem::passed_on(status) {
            return problem;
        }
        let cause = std::error::Error::source(status).map_or_else(|| status.message().to_owned(), innermost);
        let mut causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
        if causes.any(|cause| cause.is::<ConnectError>()) {
            // The connection had ended, and there is no other: nothing was sent.
            self.forget(connection);
            return Problem::new(Reason::NotLeader, format!("cannot connect to node {}: {cause}: retry", connection.node_id));
        }
        let (node, reads) = (connection.node_id, repeat.is_read());
        if matches!(status.code(), Code::DeadlineExceeded) {
            let effect = if reads { "ask again" } else { "a write may still take effect" };
            let message = format!("node {node}, which leads {target}, did not answer in time; {effect}");
            return Problem::new(Reason::DeadlineExceeded, message);
        }
        self.forget(connection);
        let (reason, effect) = match reads {
            true => (Reason::Unavailable, "retry"),
            false => (Reason::OutcomeUnknown, "the request may have taken effect"),
        };
        let message =
            format!("the connection to node {node}, which leads {target}, broke before the answer came ({cause}); {effect}");
        Problem::new(reason, message)
    }
}
