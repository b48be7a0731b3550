//! The one error of this crate, and what it means for a caller: may a retry help, and may the request have taken effect?

use std::collections::HashMap;
use std::time::Duration;

use flotilla_proto::v1;
use flotilla_records::BatchError;
pub use tonic::Code;
use tonic::{ConnectError, Status};
use tonic_types::StatusExt;

/// Reasons of the server that this client acts upon (docs/errors.md lists all).
pub(crate) mod reason {
    /// A batch was damaged on its way to the server.
    pub const CORRUPT_BATCH: &str = "CORRUPT_BATCH";
    /// The write was proposed, and what became of it is not known.
    pub const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";
    /// A batch came before one with smaller sequence numbers.
    pub const OUT_OF_ORDER_SEQUENCE: &str = "OUT_OF_ORDER_SEQUENCE";
    /// The partition does not remember the producer id.
    pub const UNKNOWN_PRODUCER: &str = "UNKNOWN_PRODUCER";
    /// The node does not lead the partition; it may know who does.
    pub const NOT_LEADER: &str = "NOT_LEADER";
    /// The node is stopping.
    pub const DRAINING: &str = "DRAINING";
    /// The node cannot serve the partition at the moment.
    pub const UNAVAILABLE: &str = "UNAVAILABLE";
    /// The request was meant for another cluster.
    pub const WRONG_CLUSTER: &str = "WRONG_CLUSTER";
    /// The topic that the request means is gone, and another one has its name.
    pub const TOPIC_RECREATED: &str = "TOPIC_RECREATED";
    /// The offset lies before the log start or behind the end.
    pub const OFFSET_OUT_OF_RANGE: &str = "OFFSET_OUT_OF_RANGE";
    /// The topic has fewer partitions. The client says so itself where it knows.
    pub const UNKNOWN_PARTITION: &str = "UNKNOWN_PARTITION";
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused.
    #[error("{message}{}", in_brackets(.reason))]
    Server {
        /// gRPC status code.
        code: Code,
        /// Stable reason, as documented in docs/errors.md; empty if the server gave none.
        reason: String,
        /// For people: what is wrong and what to do.
        message: String,
        /// Details by name.
        metadata: HashMap<String, String>,
        /// How long the server asks to wait before a retry.
        retry_after: Option<Duration>,
    },
    /// No node could be reached; the request was not sent.
    #[error("cannot reach {addresses}: {reason}; check that the server runs and that the address is right")]
    Unreachable {
        /// Addresses tried.
        addresses: String,
        /// Why the last one failed.
        reason: String,
    },
    /// Something answers at the address, but it does not speak gRPC.
    #[error("{address} is not Flotilla's gRPC port ({answer}); give the address that the server's setting `listen` names")]
    NotFlotilla {
        /// The address.
        address: String,
        /// What came instead of an answer.
        answer: String,
    },
    /// A node of another cluster answers at an address of this client's cluster. Nothing was sent to it.
    #[error(
        "{address} leads to a node of cluster {found}, not of cluster {expected}, which this client uses: the node there is not \
         used; check --advertise of the node whose address that should be, and what forwards the address [{}]",
        reason::WRONG_CLUSTER
    )]
    WrongCluster {
        /// The address.
        address: String,
        /// The cluster that the client uses.
        expected: String,
        /// The cluster whose node answered.
        found: String,
    },
    /// The topic was deleted, and another one has its name by now. Positions in the old one mean nothing there, and records
    /// that were meant for the old one are not written to it.
    #[error(
        "topic {topic:?} was deleted and created again: this is another topic now (id {topic_id}) [{}]",
        reason::TOPIC_RECREATED
    )]
    TopicRecreated {
        /// The name.
        topic: String,
        /// UUID of the topic that has it now.
        topic_id: String,
    },
    /// The topic has no such partition.
    #[error("topic {topic:?} has no partition {partition}: its last one is {last} [{}]", reason::UNKNOWN_PARTITION)]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// Its last one.
        last: u32,
    },
    /// The connection broke while the request was on its way.
    #[error("the connection broke before the answer came ({reason}); a write may have taken effect")]
    ConnectionLost {
        /// What the transport said.
        reason: String,
    },
    /// There was no connection of use, though somebody listens at the address.
    #[error("the request was not sent ({reason}); nothing was written")]
    NotSent {
        /// Why not.
        reason: String,
    },
    /// No answer within the time allowed.
    #[error("no answer within {}; a write may have taken effect", seconds(.0))]
    Timeout(Duration),
    /// A record was not acknowledged within the delivery timeout.
    #[error("not acknowledged within {}{}; {}", seconds(.timeout), last_cause(.last), if *.outcome_unknown {
        "it may have been written or not"
    } else {
        "it was not written"
    })]
    DeliveryTimeout {
        /// The timeout.
        timeout: Duration,
        /// Whether an attempt may have succeeded unseen.
        outcome_unknown: bool,
        /// Why the last attempt failed.
        last: String,
    },
    /// A record was refused, but an attempt before that may have written it.
    #[error("{cause}; an attempt before that broke off, so the record may have been written or not")]
    InDoubt {
        /// The refusal.
        cause: Box<Error>,
    },
    /// The record was not sent, because one before it was lost and the producer was to stop there
    /// ([`ProducerOptions::stop_at_loss`](crate::ProducerOptions::stop_at_loss)).
    #[error("not sent, because a record before it was lost: {cause}")]
    Stopped {
        /// Why the one before was lost.
        cause: Box<Error>,
    },
    /// The caller asked for something impossible.
    #[error("{0}")]
    InvalidArgument(String),
    /// A batch from the server, or one that was to be built, is not valid.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The server broke the protocol.
    #[error("the server's answer makes no sense: {0}; client and server may be of versions that do not fit")]
    Protocol(String),
    /// The producer was closed.
    #[error("the producer is closed: create a new one")]
    Closed,
}

impl Error {
    /// The gRPC status code that fits the error.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Server { code, .. } => *code,
            Self::Unreachable { .. } | Self::ConnectionLost { .. } | Self::NotSent { .. } | Self::NotFlotilla { .. } => {
                Code::Unavailable
            }
            Self::WrongCluster { .. } | Self::TopicRecreated { .. } => Code::FailedPrecondition,
            Self::UnknownPartition { .. } => Code::NotFound,
            Self::Timeout(_) | Self::DeliveryTimeout { .. } => Code::DeadlineExceeded,
            Self::InDoubt { cause } | Self::Stopped { cause } => cause.code(),
            Self::InvalidArgument(_) => Code::InvalidArgument,
            Self::Batch(_) => Code::DataLoss,
            Self::Protocol(_) => Code::Internal,
            Self::Closed => Code::FailedPrecondition,
        }
    }

    /// The server's stable reason; empty where there is none.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Server { reason, .. } => reason,
            Self::UnknownPartition { .. } => reason::UNKNOWN_PARTITION,
            Self::WrongCluster { .. } => reason::WRONG_CLUSTER,
            Self::TopicRecreated { .. } => reason::TOPIC_RECREATED,
            Self::InDoubt { cause } | Self::Stopped { cause } => cause.reason(),
            _ => "",
        }
    }

    /// Whether another node than this one should be asked.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self.reason(), reason::NOT_LEADER | reason::DRAINING | reason::UNAVAILABLE)
    }

    /// A detail of the server's refusal.
    pub(crate) fn metadata(&self, name: &str) -> Option<&str> {
        match self {
            Self::Server { metadata, .. } => metadata.get(name).map(String::as_str),
            Self::InDoubt { cause } => cause.metadata(name),
            _ => None,
        }
    }

    /// Whether the same request may succeed later. It says nothing about the first attempt: see
    /// [`outcome_unknown`](Error::outcome_unknown).
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Server { code, reason, retry_after, .. } => {
                matches!(code, Code::Unavailable | Code::DeadlineExceeded)
                    // Nothing is wrong with the request, and the server says when it may have room.
                    || *code == Code::ResourceExhausted && retry_after.is_some()
                    || matches!(reason.as_str(), reason::OUTCOME_UNKNOWN | reason::CORRUPT_BATCH)
            }
            Self::Unreachable { .. } | Self::ConnectionLost { .. } | Self::NotSent { .. } | Self::Timeout(_) => true,
            _ => false,
        }
    }

    /// Whether the request may have taken effect although it failed.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::Server { code, reason, .. } => reason == reason::OUTCOME_UNKNOWN || *code == Code::DeadlineExceeded,
            Self::ConnectionLost { .. } | Self::Timeout(_) | Self::InDoubt { .. } => true,
            Self::DeliveryTimeout { outcome_unknown, .. } => *outcome_unknown,
            _ => false,
        }
    }

    /// Whether the server's answer to a batch says that its sequence numbers do not follow what it remembers.
    pub(crate) fn is_sequence_error(&self) -> bool {
        matches!(self.reason(), reason::OUT_OF_ORDER_SEQUENCE | reason::UNKNOWN_PRODUCER)
    }

    /// The error of a call that the node at `address` answered.
    pub(crate) fn of_answer(status: Status, address: &str) -> Self {
        // What tonic makes of an answer over HTTP that is none of gRPC.
        match status.message().strip_prefix("grpc-status header missing, mapped from ") {
            Some(answer) => Self::NotFlotilla { address: address.to_owned(), answer: answer.to_owned() },
            None => Self::from(status),
        }
    }

    /// What the server said.
    fn refused(
        code: Code,
        (reason, mut metadata): (String, HashMap<String, String>),
        message: String,
        retry_after: Option<Duration>,
    ) -> Self {
        if reason == reason::TOPIC_RECREATED {
            let mut detail = |name| metadata.remove(name).unwrap_or_default();
            return Self::TopicRecreated { topic: detail("topic"), topic_id: detail("topic_id") };
        }
        Self::Server { code, reason, message, metadata, retry_after }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let lost = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
        if causes(&status).any(|cause| cause.is::<ConnectError>()) {
            return Self::NotSent { reason: transport_reason(&status) };
        }
        if info.is_none() && lost {
            // Flotilla gives a reason with every error, so this one comes from the transport.
            return Self::ConnectionLost { reason: transport_reason(&status) };
        }
        let (reason, metadata) = info.map(|info| (info.reason.clone(), info.metadata.clone())).unwrap_or_default();
        let retry_after = details.retry_info().and_then(|retry| retry.retry_delay);
        Self::refused(status.code(), (reason, metadata), status.message().to_owned(), retry_after)
    }
}

impl From<v1::Error> for Error {
    fn from(error: v1::Error) -> Self {
        let retry_after = error.retry_delay.and_then(|delay| delay.try_into().ok());
        Self::refused(Code::from_i32(error.code), (error.reason, error.metadata), error.message, retry_after)
    }
}

/// The errors behind a status.
pub(crate) fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |cause| cause.source())
}

/// The innermost cause says more than "transport error".
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn transport_reason(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => innermost(source),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_owned(),
    }
}

fn in_brackets(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" [{reason}]") }
}

fn last_cause(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!(" (last: {last})") }
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_grpc_names_the_address() {
        let status = Status::unimplemented("grpc-status header missing, mapped from HTTP status code 404");
        let error = Error::of_answer(status, "127.0.0.1:7071");
        assert!(matches!(&error, Error::NotFlotilla { address, .. } if address == "127.0.0.1:7071"), "{error:?}");
        assert_eq!((error.code(), error.is_retriable(), error.outcome_unknown()), (Code::Unavailable, false, false));
        assert!(error.to_string().contains("is not Flotilla's gRPC port (HTTP status code 404)"), "{error}");
        assert!(matches!(Error::of_answer(Status::unimplemented("no such method"), "a:1"), Error::Server { .. }));
    }
}
