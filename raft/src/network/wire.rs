//! Between frames and openraft's messages. What a peer sends is checked before openraft sees it: a log that does not
//! follow, or a leader that is not the sender, would make the group's core give up.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flotilla_proto::internal::v1 as pb;
use flotilla_proto::internal::v1::append_result::Result as Outcome;
use flotilla_proto::internal::v1::entry::Body as WireBody;
use flotilla_proto::internal::v1::frame::Kind;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};
use prost::Message as _;

use crate::log::convert::{entry_from_raft, entry_to_raft, log_id_from_raft, log_id_to_raft, vote_from_raft, vote_to_raft};
use crate::log::type_config::{RaftLogId, TypeConfig};
use crate::types::{Body, Entry, Item, LogId, ReplicaId, Vote};

/// Bytes of a frame beside its payloads, about.
const FRAME_BYTES: usize = 64;
/// The same for an entry or item.
const PART_BYTES: usize = 24;
/// Payloads that are less than this part of the message that brought them are copied out of it.
const SLICED_FROM: usize = 4;

/// Bytes that an append takes in memory and on the wire, about.
pub(super) fn append_bytes(request: &AppendEntriesRequest<TypeConfig>) -> usize {
    let entry = |payload: &openraft::EntryPayload<_, _, _>| match payload {
        openraft::EntryPayload::Normal(crate::log::type_config::Command(items)) => {
            items.iter().map(|item| item.payload.len() + PART_BYTES).sum()
        }
        _ => 0_usize,
    };
    FRAME_BYTES + request.entries.iter().map(|item| PART_BYTES + entry(&item.payload)).sum::<usize>()
}

/// The same for any other frame.
pub(super) fn frame_bytes(kind: &pb::frame::Kind) -> usize {
    match kind {
        pb::frame::Kind::Cast(message) => FRAME_BYTES + message.len(),
        pb::frame::Kind::Refused(reason) => FRAME_BYTES + reason.len(),
        pb::frame::Kind::Reports(reports) => FRAME_BYTES + reports.encoded_len(),
        _ => FRAME_BYTES,
    }
}

pub(super) fn append_to_wire(stream_id: u64, request: AppendEntriesRequest<TypeConfig>) -> pb::Append {
    pb::Append {
        stream_id,
        vote: Some(vote_to_wire(vote_from_raft(&request.vote))),
        previous: request.prev_log_id.as_ref().map(log_id_to_wire),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
        entries: request.entries.into_iter().map(|entry| entry_to_wire(entry_from_raft(entry))).collect(),
    }
}

/// Whoever says that it leads with this vote.
///
/// # Errors
/// `InvalidData` if nobody leads with it.
pub(super) fn leader_of(vote: Vote) -> io::Result<ReplicaId> {
    vote.voted_for.filter(|_| vote.committed).ok_or_else(|| invalid("its sender does not claim to lead"))
}

/// An append, and the leader that it is from.
///
/// # Errors
/// `InvalidData` if it is nothing that a leader could send.
pub(super) fn append_from_wire(append: pb::Append) -> io::Result<(ReplicaId, AppendEntriesRequest<TypeConfig>)> {
    let vote = vote_from_wire(append.vote)?;
    let from = leader_of(vote)?;
    let previous = append.previous.map(log_id_from_wire).transpose()?;
    let mut last = previous;
    let mut entries = Vec::with_capacity(append.entries.len());
    for entry in append.entries {
        let entry = entry_from_wire(entry)?;
        let follows = match last {
            Some(last) => entry.log_id.index == last.index + 1 && entry.log_id.term >= last.term,
            None => entry.log_id.index == 0,
        };
        if !follows || entry.log_id.term > vote.term {
            return Err(invalid("an append's entries do not follow each other"));
        }
        last = Some(entry.log_id);
        entries.push(entry_to_raft(&entry)?);
    }
    let request = AppendEntriesRequest {
        vote: vote_to_raft(vote),
        prev_log_id: previous.map(log_id_to_raft),
        leader_commit: append.leader_commit.map(log_id_from_wire).transpose()?.map(log_id_to_raft),
        entries,
    };
    Ok((from, request))
}

/// Payload bytes of an append that came in.
pub(super) fn payload_bytes(append: &pb::Append) -> usize {
    append.entries.iter().flat_map(items_of).map(|item| item.payload.len()).sum()
}

/// Copies small payloads out of a large message: they may stay in memory for long, and would keep all of it.
pub(super) fn detach(append: &mut pb::Append, message_bytes: usize) {
    let own = payload_bytes(append);
    if own == 0 || own >= message_bytes / SLICED_FROM {
        return;
    }
    let mut copy = BytesMut::with_capacity(own);
    for entry in &mut append.entries {
        let Some(WireBody::Items(items)) = &mut entry.body else { continue };
        for item in &mut items.items {
            copy.extend_from_slice(&item.payload);
            item.payload = copy.split().freeze();
        }
    }
}

fn items_of(entry: &pb::Entry) -> &[pb::Item] {
    match &entry.body {
        Some(WireBody::Items(items)) => &items.items,
        _ => &[],
    }
}

fn entry_to_wire(entry: Entry) -> pb::Entry {
    let item = |item: &Item| pb::Item { kind: item.kind.into(), payload: item.payload.clone() };
    let body = match entry.body {
        Body::Blank => None,
        Body::Items(items) => Some(WireBody::Items(pb::Items { items: items.iter().map(item).collect() })),
        Body::Membership(membership) => Some(WireBody::Membership(membership)),
    };
    pb::Entry { log_id: Some(pb::LogId { term: entry.log_id.term, index: entry.log_id.index }), body }
}

fn entry_from_wire(entry: pb::Entry) -> io::Result<Entry> {
    let log_id = log_id_from_wire(entry.log_id.ok_or_else(|| invalid("an entry has no log id"))?)?;
    let item = |item: pb::Item| {
        let kind = u8::try_from(item.kind).map_err(|_| invalid("there is no such kind of item"))?;
        Ok(Item { kind, payload: item.payload })
    };
    let body = match entry.body {
        None => Body::Blank,
        Some(WireBody::Items(items)) => Body::Items(items.items.into_iter().map(item).collect::<io::Result<Arc<[Item]>>>()?),
        Some(WireBody::Membership(membership)) => Body::Membership(membership),
    };
    Ok(Entry { log_id, body })
}

pub(super) fn result_to_wire(result: StreamAppendResult<TypeConfig>) -> pb::AppendResult {
    let result = match result {
        Ok(matched) => Outcome::Matched(pb::Matched { log_id: matched.as_ref().map(log_id_to_wire) }),
        Err(StreamAppendError::Conflict(log_id)) => Outcome::Conflict(log_id_to_wire(&log_id)),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::HigherVote(vote_to_wire(vote_from_raft(&vote))),
    };
    pb::AppendResult { result: Some(result) }
}

pub(super) fn result_from_wire(result: pb::AppendResult) -> io::Result<StreamAppendResult<TypeConfig>> {
    Ok(match result.result.ok_or_else(|| invalid("an append's result is empty"))? {
        Outcome::Matched(matched) => Ok(matched.log_id.map(log_id_from_wire).transpose()?.map(log_id_to_raft)),
        Outcome::Conflict(log_id) => Err(StreamAppendError::Conflict(log_id_to_raft(log_id_from_wire(log_id)?))),
        Outcome::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_to_raft(vote_from_wire(Some(vote))?))),
    })
}

/// The answer to an append on its own.
pub(super) fn response_to_wire(response: AppendEntriesResponse<TypeConfig>, previous: Option<RaftLogId>) -> pb::AppendResult {
    match response {
        // Conflict with nothing cannot be: who sends nothing before it agrees with every log.
        AppendEntriesResponse::Conflict if previous.is_none() => result_to_wire(Ok(None)),
        other => result_to_wire(other.into_stream_result(previous, previous)),
    }
}

pub(super) fn response_from_wire(result: pb::AppendResult) -> io::Result<AppendEntriesResponse<TypeConfig>> {
    Ok(match result_from_wire(result)? {
        Ok(_) => AppendEntriesResponse::Success,
        Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
        Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
    })
}

pub(super) fn vote_request_to_wire(request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to_wire(vote_from_raft(&request.vote))),
        last: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

/// What a candidate asks for, and who it is.
///
/// # Errors
/// `InvalidData` if nobody could ask for it.
pub(super) fn vote_request_from_wire(request: pb::VoteRequest) -> io::Result<(ReplicaId, VoteRequest<TypeConfig>)> {
    let vote = vote_from_wire(request.vote)?;
    let from = vote.voted_for.filter(|_| !vote.committed).ok_or_else(|| invalid("it is no candidate who asks for a vote"))?;
    let last = request.last.map(log_id_from_wire).transpose()?.map(log_id_to_raft);
    let mut asked = VoteRequest::new(vote_to_raft(vote), last);
    asked.leadership_transfer = request.leadership_transfer;
    Ok((from, asked))
}

pub(super) fn vote_response_to_wire(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_to_wire(vote_from_raft(&response.vote))),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(log_id_to_wire),
    }
}

pub(super) fn vote_response_from_wire(response: pb::VoteResponse) -> io::Result<VoteResponse<TypeConfig>> {
    let last = response.last.map(log_id_from_wire).transpose()?.map(log_id_to_raft);
    Ok(VoteResponse::new(vote_to_raft(vote_from_wire(response.vote)?), last, response.granted))
}

pub(super) fn transfer_to_wire(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferLeader {
    pb::TransferLeader {
        from_leader: Some(vote_to_wire(vote_from_raft(request.from_leader()))),
        to_replica: request.to_node_id().0,
        last: request.last_log_id().map(log_id_to_wire),
    }
}

/// A lead that is offered, and the leader that does.
///
/// # Errors
/// `InvalidData` if nobody leads with that vote.
pub(super) fn transfer_from_wire(request: pb::TransferLeader) -> io::Result<(ReplicaId, TransferLeaderRequest<TypeConfig>)> {
    let vote = vote_from_wire(request.from_leader)?;
    let from = leader_of(vote)?;
    let last = request.last.map(log_id_from_wire).transpose()?.map(log_id_to_raft);
    Ok((from, TransferLeaderRequest::new(vote_to_raft(vote), ReplicaId(request.to_replica), last)))
}

/// The highest term that a frame speaks of; 0 if it speaks of none.
pub(super) fn term_of(kind: &Kind) -> u64 {
    let vote = match kind {
        Kind::Append(append) => append.vote,
        Kind::Vote(request) | Kind::PreVote(request) => request.vote,
        Kind::VoteResponse(response) => response.vote,
        Kind::TransferLeader(request) => request.from_leader,
        Kind::AppendResult(result) => match result.result {
            Some(Outcome::HigherVote(vote)) => Some(vote),
            _ => None,
        },
        _ => None,
    };
    vote.map_or(0, |vote| vote.term)
}

pub(super) fn vote_to_wire(vote: Vote) -> pb::Vote {
    pb::Vote { term: vote.term, voted_for: vote.voted_for.unwrap_or_default().0, committed: vote.committed }
}

pub(super) fn vote_from_wire(vote: Option<pb::Vote>) -> io::Result<Vote> {
    let pb::Vote { term, voted_for, committed } = vote.ok_or_else(|| invalid("a vote is missing"))?;
    // The term after it must be there for the next election.
    if term == u64::MAX {
        return Err(invalid("there is no such term"));
    }
    Ok(Vote { term, voted_for: (voted_for != 0).then_some(ReplicaId(voted_for)), committed })
}

fn log_id_to_wire(log_id: &RaftLogId) -> pb::LogId {
    let LogId { term, index } = log_id_from_raft(log_id);
    pb::LogId { term, index }
}

fn log_id_from_wire(log_id: pb::LogId) -> io::Result<LogId> {
    if log_id.index == u64::MAX {
        return Err(invalid("there is no such log index"));
    }
    Ok(LogId { term: log_id.term, index: log_id.index })
}

/// What a peer sent that it never should.
pub(super) fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a peer sent something malformed: {reason}"))
}

/// A cluster id as it is in a message.
pub(super) fn cluster_id(bytes: &Bytes) -> io::Result<crate::data_dir::ClusterId> {
    let id = <[u8; 16]>::try_from(bytes.as_ref()).map_err(|_| invalid("a cluster id has 16 bytes"))?;
    Ok(crate::data_dir::ClusterId(id))
}
