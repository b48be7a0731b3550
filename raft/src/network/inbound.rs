//! What comes in over a link: each frame goes to the group that it is for. Nothing here waits for a group: one that
//! is slow must not hold up the others.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use flotilla_proto::internal::v1 as pb;
use flotilla_proto::internal::v1::frame::Kind;
use futures::StreamExt;
use openraft::raft::{AppendEntriesRequest, StreamAppendError};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::link::{Link, STREAM_APPENDS_MAX};
use super::outbox::Pace;
use super::peers::Peers;
use super::wire;
use crate::group::Group;
use crate::log::type_config::TypeConfig;
use crate::tripwire::{REPORTS_MAX, Report};
use crate::types::{GroupId, Replica, ReplicaId};

/// Streams of appends that a peer may have open: two for each of many groups.
const STREAMS_MAX: usize = 1 << 17;
/// Questions of one peer that may be on their way to groups at once.
const QUESTIONS_MAX: usize = 1 << 14;

/// Elections that a replica can have missed.
const TERMS_AHEAD_MAX: u64 = 1 << 32;

/// Takes the frames of one link, in order.
pub(super) struct Inbound {
    peers: Peers,
    link: Arc<Link>,
    /// Appends to their group; `None` for a stream that ended here, and whose sender does not know that yet.
    streams: HashMap<u64, Option<Followed>>,
    questions: Arc<Semaphore>,
}

/// A stream of appends of one leader to one replica.
struct Followed {
    from: ReplicaId,
    appends: mpsc::Sender<AppendEntriesRequest<TypeConfig>>,
}

/// What a question is about: the group, the replica that is asked, and the number of the question.
#[derive(Clone, Copy)]
struct Asked {
    group: GroupId,
    to: ReplicaId,
    id: u64,
}

impl Inbound {
    pub(super) fn new(peers: Peers, link: Arc<Link>) -> Self {
        Self { peers, link, streams: HashMap::new(), questions: Arc::new(Semaphore::new(QUESTIONS_MAX)) }
    }

    /// Takes what came in one message.
    ///
    /// # Errors
    /// `InvalidData` if the peer does not keep to the protocol. The link is given up then.
    pub(super) async fn take(&mut self, frames: Vec<pb::Frame>) -> io::Result<()> {
        let payload = |frame: &pb::Frame| match &frame.kind {
            Some(Kind::Append(append)) => wire::payload_bytes(append),
            _ => 0,
        };
        let bytes = frames.iter().map(payload).sum();
        for frame in frames {
            let (group, to, id) = (GroupId(frame.group_id), ReplicaId(frame.to_replica), frame.request_id);
            let asked = Asked { group, to, id };
            let kind = frame.kind.ok_or_else(|| wire::invalid("a frame is empty"))?;
            check_term(wire::term_of(&kind), || self.peers.group(group))?;
            match kind {
                Kind::Append(append) if append.stream_id == 0 => self.heartbeat(asked, append)?,
                Kind::Append(mut append) => {
                    wire::detach(&mut append, bytes);
                    self.append(asked, append)?;
                }
                Kind::End(_) => drop(self.streams.remove(&id)),
                Kind::Vote(request) => self.vote(asked, request, false)?,
                Kind::PreVote(request) => self.vote(asked, request, true)?,
                Kind::TransferLeader(request) => self.transfer(asked, request)?,
                Kind::Cast(message) => self.peers.received(self.link.peer, message).await,
                Kind::Probe(_) => {}
                Kind::Reports(reports) => self.reports(reports)?,
                answer @ (Kind::AppendResult(_) | Kind::VoteResponse(_) | Kind::Refused(_) | Kind::Done(_)) => {
                    if !self.link.answered(id, answer) {
                        return Err(wire::invalid("there are more results than appends"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Passes on what the peer's replicas tell.
    fn reports(&self, pb::Reports { reports }: pb::Reports) -> io::Result<()> {
        if reports.len() > REPORTS_MAX {
            return Err(wire::invalid("too many reports"));
        }
        for report in reports {
            let report = Report::from_wire(report)?;
            let Some(group) = self.peers.group(report.group) else { continue };
            check_term(report.vote.term, || Some(group.clone()))?;
            group.hear((self.link.peer, self.link.state), &report);
        }
        Ok(())
    }

    /// Passes an append on, in the order of its stream.
    fn append(&mut self, asked: Asked, append: pb::Append) -> io::Result<()> {
        let id = append.stream_id;
        let (from, request) = wire::append_from_wire(append)?;
        if !self.streams.contains_key(&id) {
            if self.streams.len() >= STREAMS_MAX {
                return Err(wire::invalid("too many streams"));
            }
            let stream = self.open_stream(Asked { id, ..asked }, from);
            self.streams.insert(id, stream);
        }
        let Some(Some(stream)) = self.streams.get(&id) else { return Ok(()) };
        if stream.from != from {
            return Err(wire::invalid("the appends of a stream are of several leaders"));
        }
        match stream.appends.try_send(request) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(wire::invalid("a stream has too many appends on their way")),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.streams.insert(id, None);
                Ok(())
            }
        }
    }

    fn open_stream(&self, asked: Asked, from: ReplicaId) -> Option<Followed> {
        let Asked { group, to, id } = asked;
        let running = self.peers.recipient(group, to, self.on_peer(from));
        let running = running.inspect_err(|reason| refuse(&self.link, group, id, reason)).ok()?;
        let (appends, rx) = mpsc::channel(STREAM_APPENDS_MAX);
        tokio::spawn(follow(self.link.clone(), running, id, rx));
        Some(Followed { from, appends })
    }

    fn on_peer(&self, id: ReplicaId) -> Replica {
        Replica { id, node: self.link.peer }
    }

    /// Runs `answer` beside everything else, and sends what it says.
    fn question<F>(&self, asked: Asked, from: ReplicaId, answer: impl FnOnce(Group) -> F + Send + 'static)
    where
        F: Future<Output = Result<Kind, String>> + Send,
    {
        let (link, Asked { group, to, id }) = (self.link.clone(), asked);
        let Ok(permit) = self.questions.clone().try_acquire_owned() else {
            return refuse(&link, group, id, "too many questions at once");
        };
        let running = match self.peers.recipient(group, to, self.on_peer(from)) {
            Ok(running) => running,
            Err(reason) => return refuse(&link, group, id, &reason),
        };
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                answer = answer(running) => match answer {
                    Ok(kind) => link.send(group, id, kind, Pace::Now),
                    Err(reason) => refuse(&link, group, id, &reason),
                },
                () = link.closed.cancelled() => {}
            }
        });
    }

    fn heartbeat(&self, asked: Asked, append: pb::Append) -> io::Result<()> {
        let (from, request) = wire::append_from_wire(append)?;
        if !request.entries.is_empty() {
            return Err(wire::invalid("entries come outside of a stream"));
        }
        self.question(asked, from, |group| async move {
            let previous = request.prev_log_id;
            // At once: where a disk is slow the answer comes late, and that says nothing about the leader.
            if request.vote.leader_id.term >= group.term() {
                group.heard().note();
            }
            group.joining().hear(committed_index(&request)).await;
            let response = group.raft().append_entries(request).await.map_err(|error| error.to_string())?;
            Ok(Kind::AppendResult(wire::response_to_wire(response, previous)))
        });
        Ok(())
    }

    fn vote(&self, asked: Asked, request: pb::VoteRequest, pre_vote: bool) -> io::Result<()> {
        let (candidate, request) = wire::vote_request_from_wire(request)?;
        let led_before = request.vote.leader_id.term.saturating_sub(1);
        self.question(asked, candidate, move |group| async move {
            if !group.may_elect() {
                return Err("this replica is still being copied".to_owned());
            }
            if group.standing().borrow().membership.voters.keys().eq([&group.replica()]) {
                return Err("this replica decides alone".to_owned());
            }
            // Who asks to be elected leads no longer. It gave the lead to another, perhaps, who died before all heard of it.
            group.waive_lease(candidate, led_before).await;
            let raft = group.raft();
            let response = if pre_vote { raft.pre_vote(request).await } else { raft.vote(request).await };
            let response = response.map_err(|error| error.to_string())?;
            Ok(Kind::VoteResponse(wire::vote_response_to_wire(&response)))
        });
        Ok(())
    }

    fn transfer(&self, asked: Asked, request: pb::TransferLeader) -> io::Result<()> {
        let (from, request) = wire::transfer_from_wire(request)?;
        self.question(asked, from, |group| async move {
            if *request.to_node_id() == group.replica() && !group.may_elect() {
                return Err("this replica is still being copied".to_owned());
            }
            let request = group.without_what_is_here(request);
            let response = group.raft().handle_transfer_leader(request).await.map_err(|error| error.to_string())?;
            response.map_err(|error| error.to_string())?;
            Ok(Kind::Done(pb::Done {}))
        });
        Ok(())
    }
}

/// Appends what comes in one stream to its group, and answers in order. Ends with the stream, or with the first append
/// that the group does not take.
async fn follow(link: Arc<Link>, group: Group, id: u64, appends: mpsc::Receiver<AppendEntriesRequest<TypeConfig>>) {
    let group_id = group.id();
    let joining = group.joining().clone();
    let heard = move |append: AppendEntriesRequest<TypeConfig>| {
        let joining = joining.clone();
        async move {
            joining.hear(committed_index(&append)).await;
            append
        }
    };
    let appends = ReceiverStream::new(appends).then(heard).boxed();
    let mut results = Box::pin(group.raft().stream_append(appends));
    loop {
        let result = tokio::select! {
            result = results.next() => result,
            () = link.closed.cancelled() => return,
        };
        match result {
            // The sender has ended it and does not listen; or the group stopped, and it must not wait.
            None => return refuse(&link, group_id, id, "the group stopped"),
            Some(Ok(result)) => {
                if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
                    group.heard().note();
                }
                link.send(group_id, id, Kind::AppendResult(wire::result_to_wire(result)), Pace::Now);
            }
            Some(Err(fatal)) => return refuse(&link, group_id, id, &fatal.to_string()),
        }
    }
}

/// What the leader says is committed.
fn committed_index(append: &AppendEntriesRequest<TypeConfig>) -> Option<u64> {
    append.leader_commit.as_ref().map(|committed| committed.index)
}

/// Refuses terms that no number of elections explains: the last of them would leave no term for the next election.
pub(super) fn check_term(term: u64, group: impl FnOnce() -> Option<Group>) -> io::Result<()> {
    // In the beginning all are near: nothing has to be looked up.
    if term < TERMS_AHEAD_MAX || group().is_none_or(|group| term.saturating_sub(group.term()) < TERMS_AHEAD_MAX) {
        return Ok(());
    }
    Err(wire::invalid("a term is too far ahead"))
}

fn refuse(link: &Link, group: GroupId, id: u64, reason: &str) {
    link.send(group, id, Kind::Refused(reason.to_owned()), Pace::Now);
}
