//! Why a command failed, and the exit code that says so to a script: 0 ok, 1 failure, 2 usage, 3 not found, 4 conflict,
//! 5 unavailable, 130 interrupted.

use std::io;

use flotilla_client::{Code, Error};

/// Why a client command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The cluster refused or did not answer.
    #[error(transparent)]
    Client(#[from] Error),
    /// A record was given up. Whether it was written, the report says, of all of them.
    #[error("not every record was acknowledged: {}", cause(.0))]
    Lost(Error),
    /// A line of the input cannot be a record.
    #[error("{input}, line {line}: {error}")]
    Line {
        /// The input's name.
        input: String,
        /// From 1.
        line: u64,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The command did not do all it was asked for.
    #[error("{0}")]
    Failed(String),
    /// A file, stdin or stdout failed.
    #[error("{what}: {error}")]
    Io {
        /// What was being read or written.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// For `map_err`: names what was being read or written.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what: what.into(), error }
    }

    /// The code that the process ends with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let of = |error: &Error| match error.code() {
            Code::InvalidArgument => 2,
            Code::NotFound => 3,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => 4,
            Code::Unavailable | Code::DeadlineExceeded => 5,
            _ => 1,
        };
        match self {
            Self::Client(error) | Self::Lost(error) => of(error),
            Self::Line { error, .. } => of(error),
            Self::Usage(_) => 2,
            Self::Failed(_) | Self::Io { .. } => 1,
            Self::Interrupted => 130,
        }
    }
}

/// Without what it says of a single record's outcome.
fn cause(error: &Error) -> String {
    match error {
        Error::DeliveryTimeout { timeout, last, .. } if last.is_empty() => format!("no answer within {timeout:?}"),
        Error::DeliveryTimeout { timeout, last, .. } => format!("no success within {timeout:?}; the last attempt: {last}"),
        Error::InDoubt { cause } => cause.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: Code) -> CliError {
        Error::Server { code, reason: String::new(), message: String::new(), metadata: Default::default(), retry_after: None }
            .into()
    }

    #[test]
    fn codes_tell_failures_apart() {
        let unreachable = Error::Unreachable { addresses: String::new(), reason: String::new() };
        for (error, code) in [
            (server(Code::Internal), 1),
            (server(Code::InvalidArgument), 2),
            (server(Code::NotFound), 3),
            (server(Code::AlreadyExists), 4),
            (server(Code::FailedPrecondition), 4),
            (server(Code::Unavailable), 5),
            (unreachable.into(), 5),
            (CliError::Usage(String::new()), 2),
        ] {
            assert_eq!(error.exit_code(), code, "{error:?}");
        }
    }
}
