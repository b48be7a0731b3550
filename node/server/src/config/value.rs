//! The types a setting can have: how each is read from text, written back, and called in help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::units;

/// A type that settings can have. All sources (flag, environment, file, default) speak text.
pub trait Value: Sized {
    /// What stands for the value in help, such as `SIZE`.
    const HINT: &'static str;

    /// Reads it. The error says what would be right.
    fn parse(text: &str) -> Result<Self, String>;

    /// Writes it so that `parse` reads it back.
    fn show(&self) -> String;
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// As a length in memory; sizes beyond the address space become its end.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Filter directives of tracing: `info`, or `info,flotilla_raft=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(pub String);

/// What is logged: nothing, or everything up to this detail.
const LOG_LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where clients reach this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advertise {
    /// At the address it listens on.
    Listen,
    /// At this host and port.
    At(String),
}

/// Where other nodes reach this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAdvertise {
    /// Where clients do.
    Advertise,
    /// At this host and port.
    At(String),
}

/// Addresses of the first nodes of a cluster, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub Vec<String>);

/// A value that the server chooses unless one is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auto<T> {
    /// The server chooses.
    Auto,
    /// This one.
    Given(T),
}

impl<T: Value> Value for Auto<T> {
    const HINT: &'static str = T::HINT;

    fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        T::parse(text).map(Self::Given).map_err(|why| format!("{why}, nor auto"))
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Given(value) => value.show(),
        }
    }
}

impl Value for PathBuf {
    const HINT: &'static str = "PATH";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path cannot be empty".to_owned()) } else { Ok(Self::from(text)) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for SocketAddr {
    const HINT: &'static str = "ADDR";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not an address: write IP:PORT, such as 127.0.0.1:7070 or [::]:7070"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u64 {
    const HINT: &'static str = "NUMBER";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not a whole number"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    const HINT: &'static str = "NUMBER";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not a whole number up to {}", Self::MAX))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Size {
    const HINT: &'static str = "SIZE";

    fn parse(text: &str) -> Result<Self, String> {
        units::parse_size(text).map(Self).map_err(|why| format!("{text:?} is {why}"))
    }

    fn show(&self) -> String {
        units::format_size(self.0)
    }
}

impl Value for Duration {
    const HINT: &'static str = "DURATION";

    fn parse(text: &str) -> Result<Self, String> {
        units::parse_duration(text).map_err(|why| format!("{text:?} is {why}"))
    }

    fn show(&self) -> String {
        units::format_duration(*self)
    }
}

impl Value for LogFilter {
    const HINT: &'static str = "FILTER";

    fn parse(text: &str) -> Result<Self, String> {
        // The filter itself would take any other word for the name of a module, and log nothing else.
        let level = |word: &str| LOG_LEVELS.contains(&word);
        let target = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c));
        let understood = |part: &str| match part.split_once('=') {
            Some((name, word)) => target(name) && level(word),
            None => level(part),
        };
        match text.split(',').find(|part| !understood(part)) {
            None => Ok(Self(text.to_owned())),
            Some(part) => Err(format!("{part:?} is not a log level: write {}, or target=level pairs", LOG_LEVELS.join(", "))),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Value for LogFormat {
    const HINT: &'static str = "FORMAT";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not a log format: write text or json")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}

impl Value for Advertise {
    const HINT: &'static str = "HOST:PORT";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "listen" {
            return Ok(Self::Listen);
        }
        let at = host_port(text).map(Self::At);
        at.ok_or_else(|| format!("{text:?} is not an address: write HOST:PORT, or listen for the address it listens on"))
    }

    fn show(&self) -> String {
        match self {
            Self::Listen => "listen".to_owned(),
            Self::At(address) => address.clone(),
        }
    }
}

/// The text, if it is a host and a port.
fn host_port(text: &str) -> Option<String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    port.map(|_| text.to_owned())
}

impl Value for PeerAdvertise {
    const HINT: &'static str = "HOST:PORT";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "advertise" {
            return Ok(Self::Advertise);
        }
        let at = host_port(text).map(Self::At);
        at.ok_or_else(|| format!("{text:?} is not an address: write HOST:PORT, or advertise for the one that clients use"))
    }

    fn show(&self) -> String {
        match self {
            Self::Advertise => "advertise".to_owned(),
            Self::At(address) => address.clone(),
        }
    }
}

impl Value for Seeds {
    const HINT: &'static str = "HOST:PORT,...";

    fn parse(text: &str) -> Result<Self, String> {
        let mut seeds = Vec::new();
        for seed in text.split(',').map(str::trim).filter(|seed| !seed.is_empty()) {
            let seed = host_port(seed).ok_or_else(|| format!("{seed:?} is not an address: write HOST:PORT,HOST:PORT"))?;
            if seeds.contains(&seed) {
                return Err(format!("{seed:?} is named twice"));
            }
            seeds.push(seed);
        }
        Ok(Self(seeds))
    }

    fn show(&self) -> String {
        self.0.join(",")
    }
}

impl Value for String {
    const HINT: &'static str = "NAME";

    fn parse(text: &str) -> Result<Self, String> {
        const BYTES_MAX: usize = 255;
        if text.len() > BYTES_MAX || text.chars().any(char::is_control) {
            return Err(format!("{text:?} is no name: write up to {BYTES_MAX} bytes without control characters"));
        }
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_log_filter_has_levels_and_nothing_else() {
        for text in ["error", "off", "info,flotilla_raft=debug", "flotilla_raft::journal=trace,warn"] {
            assert_eq!(LogFilter::parse(text).unwrap().0, text);
        }
        for text in ["", "loud", "INFO,", "flotilla_raft", "flotilla_raft=loud", "=info", "info,,warn"] {
            let error = LogFilter::parse(text).unwrap_err();
            assert!(error.ends_with("write error, warn, info, debug, trace, off, or target=level pairs"), "{error}");
        }
    }
}
