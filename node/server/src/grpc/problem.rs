//! How a failure looks to a client: a gRPC status with `google.rpc` details, or the same inside an answer that carries
//! several results. Every reason stands here with its code; docs/errors.md has a section for each.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use flotilla_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of our reasons, as in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "flotilla";

macro_rules! reasons {
    ($($name:ident $text:literal $code:ident $retry:expr;)*) => {
        /// Why a request failed, for programs. Names never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason {
            $(#[doc = $text] $name,)*
        }

        impl Reason {
            /// All reasons.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name on the wire.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The reason of that name.
            fn named(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The status code that goes with it.
            pub fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code,)*
                }
            }

            /// How long a client should wait before it tries the same again; absent where that is pointless.
            pub fn retry_after(self) -> Option<Duration> {
                match self {
                    $(Self::$name => $retry,)*
                }
            }
        }
    };
}

const NEVER: Option<Duration> = None;
/// A leader is usually found within a few heartbeats; a full queue drains within a few syncs.
pub const RETRY_BACKOFF: Duration = Duration::from_millis(50);
const SOON: Option<Duration> = Some(RETRY_BACKOFF);
const LATER: Option<Duration> = Some(Duration::from_secs(1));

reasons! {
    InvalidRequest "INVALID_REQUEST" InvalidArgument NEVER;
    RequestTooLarge "REQUEST_TOO_LARGE" InvalidArgument NEVER;
    InvalidName "INVALID_NAME" InvalidArgument NEVER;
    InvalidConfig "INVALID_CONFIG" InvalidArgument NEVER;
    InvalidBatch "INVALID_BATCH" InvalidArgument NEVER;
    CorruptBatch "CORRUPT_BATCH" InvalidArgument NEVER;
    InvalidTimestamp "INVALID_TIMESTAMP" InvalidArgument NEVER;
    UnknownCodec "UNKNOWN_CODEC" InvalidArgument NEVER;
    BatchTooLarge "BATCH_TOO_LARGE" InvalidArgument NEVER;
    DecompressedTooLarge "DECOMPRESSED_TOO_LARGE" InvalidArgument NEVER;
    UnknownTopic "UNKNOWN_TOPIC" NotFound NEVER;
    UnknownPartition "UNKNOWN_PARTITION" NotFound NEVER;
    UnknownNode "UNKNOWN_NODE" NotFound NEVER;
    TopicExists "TOPIC_EXISTS" AlreadyExists NEVER;
    WrongCluster "WRONG_CLUSTER" FailedPrecondition NEVER;
    TopicRecreated "TOPIC_RECREATED" FailedPrecondition NEVER;
    OffsetOutOfRange "OFFSET_OUT_OF_RANGE" OutOfRange NEVER;
    ProducerFenced "PRODUCER_FENCED" FailedPrecondition NEVER;
    OutOfOrderSequence "OUT_OF_ORDER_SEQUENCE" FailedPrecondition NEVER;
    UnknownProducer "UNKNOWN_PRODUCER" FailedPrecondition NEVER;
    TooManyProducers "TOO_MANY_PRODUCERS" FailedPrecondition NEVER;
    Fenced "FENCED" FailedPrecondition NEVER;
    GroupInUse "GROUP_IN_USE" FailedPrecondition NEVER;
    NotRecoverable "NOT_RECOVERABLE" FailedPrecondition NEVER;
    LimitReached "LIMIT_REACHED" FailedPrecondition NEVER;
    Overloaded "OVERLOADED" ResourceExhausted LATER;
    DiskFull "DISK_FULL" ResourceExhausted LATER;
    Stalled "STALLED" Aborted SOON;
    NotLeader "NOT_LEADER" Unavailable SOON;
    Draining "DRAINING" Unavailable SOON;
    Unavailable "UNAVAILABLE" Unavailable LATER;
    DeadlineExceeded "DEADLINE_EXCEEDED" DeadlineExceeded NEVER;
    OutcomeUnknown "OUTCOME_UNKNOWN" Unknown SOON;
    Damaged "DAMAGED" DataLoss NEVER;
    Internal "INTERNAL" Internal NEVER;
}

/// Bytes of a message, or of a detail. They repeat what the client sent, and travel as HTTP headers, which clients take
/// up to a few KiB of.
const TEXT_BYTES_MAX: usize = 1024;

/// The text, or its beginning.
fn shortened(text: String) -> String {
    const MARK: &str = "...";
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let end = (0..=TEXT_BYTES_MAX - MARK.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{MARK}", text.get(..end).unwrap_or_default())
}

/// A failure on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    reason: Reason,
    message: String,
    metadata: HashMap<String, String>,
    field: Option<Cow<'static, str>>,
}

impl Problem {
    /// A failure with its explanation: what is wrong and what to do.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: shortened(message.into()), metadata: HashMap::new(), field: None }
    }

    /// A field of the request that does not make sense. `why` completes "FIELD ...".
    pub fn field(field: &'static str, why: impl AsRef<str>) -> Self {
        let message = format!("{field} {}", why.as_ref());
        Self { field: Some(field.into()), ..Self::new(Reason::InvalidRequest, message) }
    }

    /// What another node answered, to be passed on as it is; `None` if the status is the transport's and no node's.
    pub fn passed_on(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        // A reason that only newer nodes know.
        let reason = Reason::named(&info.reason).unwrap_or(Reason::Internal);
        let violations = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
        let field = violations.first().map(|violation| Cow::Owned(violation.field.clone()));
        Some(Self { reason, message: status.message().to_owned(), metadata: info.metadata.clone(), field })
    }

    /// Why it failed.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What is wrong and what to do.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether nothing was changed, and the same request may succeed in a moment, here or on another node: a leader is
    /// being elected, or is about to move.
    pub fn is_passing(&self) -> bool {
        matches!(self.reason, Reason::NotLeader | Reason::Draining | Reason::Unavailable)
    }

    /// Whether a write may have taken effect.
    pub fn is_unknown(&self) -> bool {
        matches!(self.reason, Reason::OutcomeUnknown | Reason::DeadlineExceeded)
    }

    /// Adds a detail for programs.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.metadata.insert(name.to_owned(), shortened(value.to_string()));
        self
    }

    /// Names the field of the request that is at fault.
    pub fn at(self, field: &'static str) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// The same failure as one entry of an answer.
    pub fn into_entry(self) -> v1::Error {
        v1::Error {
            code: self.reason.code() as i32,
            reason: self.reason.name().to_owned(),
            message: self.message,
            metadata: self.metadata,
            retry_delay: self.reason.retry_after().and_then(|wait| wait.try_into().ok()),
        }
    }
}

impl From<v1::Error> for Problem {
    /// What another node answered, to be passed on as it is.
    fn from(error: v1::Error) -> Self {
        let reason = Reason::named(&error.reason).unwrap_or(Reason::Internal);
        Self { reason, message: error.message, metadata: error.metadata, field: None }
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let Problem { reason, message, metadata, field } = problem;
        let subject = metadata.get("topic").cloned().unwrap_or_default();
        let mut details = ErrorDetails::with_error_info(reason.name(), DOMAIN, metadata);
        if let Some(wait) = reason.retry_after() {
            details.set_retry_info(Some(wait));
        }
        match reason.code() {
            Code::InvalidArgument => {
                if let Some(field) = field {
                    details.add_bad_request_violation(field.as_ref(), &message);
                }
            }
            Code::FailedPrecondition => {
                details.add_precondition_failure_violation(reason.name(), subject, &message);
            }
            _ => {}
        }
        Self::with_error_details(reason.code(), message, details)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_reason_has_a_section_in_the_docs_and_no_other() {
        let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md")).unwrap();
        let sections: Vec<_> = docs.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let expected: Vec<_> =
            Reason::ALL.iter().map(|reason| format!("{} ({})", reason.name(), wire_name(reason.code()))).collect();
        assert_eq!(sections, expected);
    }

    fn wire_name(code: Code) -> String {
        let mut name = String::new();
        for c in format!("{code:?}").chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }

    #[test]
    fn what_repeats_a_long_request_is_short() {
        let long = "\u{7f}é".repeat(100_000);
        let problem = Problem::new(Reason::InvalidName, format!("{long:?} is no name")).with("topic", &long).at("name");
        assert!(problem.message().len() <= TEXT_BYTES_MAX && problem.message().ends_with("..."));
        // gRPC clients take 8 KiB of headers.
        assert!(Status::from(problem).details().len() < 4 * TEXT_BYTES_MAX);
    }

    #[test]
    fn a_status_carries_reason_details_and_advice() {
        let status = Status::from(Problem::new(Reason::NotLeader, "ask node 2").with("leader", 2));
        let details = status.get_error_details();
        assert_eq!(status.code(), Code::Unavailable);
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str(), info.metadata["leader"].as_str()), ("NOT_LEADER", DOMAIN, "2"));
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(RETRY_BACKOFF));

        let status = Status::from(Problem::field("partition", "must be given"));
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "partition");
        assert_eq!(status.message(), "partition must be given");

        let status = Status::from(Problem::new(Reason::Fenced, "another owns it").with("topic", "t"));
        let details = status.get_error_details();
        assert_eq!(details.precondition_failure().unwrap().violations[0].subject, "t");
    }
}
