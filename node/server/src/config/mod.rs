//! The server's configuration: flags over environment over file over defaults, each value with its origin.
//!
//! [`settings`] declares the settings, [`value`] their types, [`check`] their ranges, [`file`] reads TOML, [`nearest`] knows what
//! a misspelt name may mean. Nothing else in the program reads environment variables or files for configuration.

mod check;
mod file;
mod nearest;
mod settings;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use check::{JOURNAL_BYTES_MIN, is_unspecified};
pub use nearest::misspelt;
pub use settings::{Config, Flags, SETTINGS, Setting};
pub use value::{Advertise, Auto, LogFormat, PeerAdvertise, Size};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A configuration file, and the line.
    File(PathBuf, usize),
    /// An environment variable, by name.
    Environment(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "file {}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One setting with the value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is declared about it.
    pub setting: Setting,
    /// The value, as text.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {error}")]
    Unreadable {
        /// File.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// The file is not TOML.
    #[error("{path}:{line}: {why}")]
    Syntax {
        /// File.
        path: String,
        /// Line, from 1.
        line: usize,
        /// What the parser said.
        why: String,
    },
    /// The file names a setting that does not exist.
    #[error("{path}:{line}: unknown key {name:?}: {}", advice(.nearest))]
    UnknownKey {
        /// File.
        path: String,
        /// Line, from 1.
        line: usize,
        /// The name found.
        name: String,
        /// The valid name nearest to it, if one is near.
        nearest: Option<&'static str>,
    },
    /// The file gives a value of a type that no setting has.
    #[error("{path}:{line}: {name} is of type {found}: write text in quotes or a whole number")]
    WrongType {
        /// File.
        path: String,
        /// Line, from 1.
        line: usize,
        /// Setting.
        name: String,
        /// TOML's name of the type found.
        found: &'static str,
    },
    /// A value does not parse.
    #[error("{name} ({origin}): {why}")]
    Invalid {
        /// Setting.
        name: &'static str,
        /// What is wrong, and what would be right.
        why: String,
        /// Where the value came from.
        origin: Origin,
    },
}

fn advice(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(name) => format!("did you mean {name:?}?"),
        None => "`flotilla config print` shows all settings".to_owned(),
    }
}

/// Puts the configuration together. `environment` looks a variable up; unset and empty are the same.
///
/// # Errors
/// A file that cannot be read or understood, a value that does not parse, or one out of its range; the message names both.
pub fn load(
    flags: &Flags,
    environment: impl Fn(&str) -> Option<String>,
    path: Option<&Path>,
) -> Result<(Config, Vec<Entry>), ConfigError> {
    let from_file = path.map_or_else(|| Ok(BTreeMap::new()), file::read)?;
    let (config, entries) = Config::resolve(|setting| {
        if let Some(text) = flags.get(setting.name) {
            return (text.to_owned(), Origin::Flag(setting.flag()));
        }
        if let Some(text) = environment(&setting.variable()).filter(|text| !text.is_empty()) {
            return (text, Origin::Environment(setting.variable()));
        }
        if let (Some((text, line)), Some(path)) = (from_file.get(setting.name), path) {
            return (text.clone(), Origin::File(path.to_owned(), *line));
        }
        (setting.default.to_owned(), Origin::Default)
    })?;
    check::check(&config, &entries)?;
    Ok((config, entries))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn flags(args: &[&str]) -> Flags {
        Line::parse_from(std::iter::once("flotilla").chain(args.iter().copied())).flags
    }

    fn origin(entries: &[Entry], name: &str) -> Origin {
        entries.iter().find(|entry| entry.setting.name == name).unwrap().origin.clone()
    }

    #[test]
    fn every_default_parses_and_shows_itself() {
        let (_, entries) = load(&Flags::default(), |_| None, None).unwrap();
        assert_eq!(entries.len(), SETTINGS.len());
        for entry in entries {
            assert_eq!(entry.value, entry.setting.default, "{}", entry.setting.name);
            assert_eq!(entry.origin, Origin::Default);
            assert!(entry.setting.help.len() > 20, "{} has no help", entry.setting.name);
        }
    }

    #[test]
    fn flags_over_environment_over_file_over_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flotilla.toml");
        fs::write(&path, "data_dir = \"file\"\nnode_id = 2\njournal_bytes = \"128MiB\"\n").unwrap();
        let environment = |name: &str| match name {
            "FLOTILLA_DATA_DIR" => Some("environment".to_owned()),
            "FLOTILLA_NODE_ID" => Some("3".to_owned()),
            "FLOTILLA_LISTEN" => Some(String::new()),
            _ => None,
        };
        let (config, entries) = load(&flags(&["--data-dir", "flag"]), environment, Some(&path)).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("flag"));
        assert_eq!(config.node_id, 3);
        assert_eq!(config.journal_bytes.0, 128 << 20);
        assert_eq!(config.listen.port(), 7070);
        assert_eq!(origin(&entries, "data_dir"), Origin::Flag("--data-dir".to_owned()));
        assert_eq!(origin(&entries, "node_id"), Origin::Environment("FLOTILLA_NODE_ID".to_owned()));
        assert_eq!(origin(&entries, "journal_bytes"), Origin::File(path, 3));
        assert_eq!(origin(&entries, "listen"), Origin::Default);
    }

    #[test]
    fn a_bad_value_names_setting_and_origin() {
        let error = load(&flags(&["--journal-bytes", "many"]), |_| None, None).unwrap_err().to_string();
        assert!(error.starts_with("journal_bytes (flag --journal-bytes): \"many\" is not a size"), "{error}");
    }

    #[test]
    fn readme_table_lists_every_setting() {
        let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
        for setting in SETTINGS {
            let line = format!("| `{}` | `{}` | {} |", setting.name, setting.default, setting.help);
            assert!(readme.contains(&line), "README.md lacks the line\n{line}");
        }
        let rows = readme.lines().skip_while(|line| !line.starts_with("| setting |")).skip(2);
        assert_eq!(rows.take_while(|line| line.starts_with('|')).count(), SETTINGS.len(), "README.md lists more");
    }
}
