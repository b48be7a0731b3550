//! `flotilla config print`: shows the configuration that a server with the same flags, environment and file would run with.

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::exit::CliError;
use super::output::{self, Output};
use super::server::ServerArgs;
use crate::config::Entry;

/// Verbs of `flotilla config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting with the value in force; as text it can be used as a configuration file
    Print(PrintArgs),
}

/// Arguments of `flotilla config print`.
#[derive(Debug, clap::Args)]
pub struct PrintArgs {
    /// Say where each value comes from: default, file, environment or flag
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Prints the settings.
///
/// # Errors
/// A configuration that does not load, or a stdout that cannot be written.
pub fn print(args: &PrintArgs, output: Output) -> Result<(), CliError> {
    let (_, entries) = args.server.load()?;
    output::print(output, &as_json(&entries, args.origin), |_, _| as_text(&entries, args.origin))
}

/// The settings as lines of TOML; origins are comments.
fn as_text(entries: &[Entry], origin: bool) -> String {
    let lines = entries.iter().map(|Entry { setting, value, origin: from }| {
        let line = format!("{} = {}", setting.name, json!(value));
        if origin { format!("{line:<48} # {from}\n") } else { format!("{line}\n") }
    });
    lines.collect()
}

/// The settings as an object by name; with origins each value is an object itself.
fn as_json(entries: &[Entry], origin: bool) -> Value {
    let fields = entries.iter().map(|Entry { setting, value, origin: from }| {
        let shown = if origin { json!({ "value": value, "origin": from.to_string() }) } else { json!(value) };
        (setting.name.to_owned(), shown)
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::config::{Flags, load};

    #[test]
    fn printed_text_is_a_configuration_file() {
        let (config, entries) = load(&Flags::default(), |_| None, None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flotilla.toml");
        std::fs::write(&path, as_text(&entries, true)).unwrap();
        let (again, _) = load(&Flags::default(), |_| None, Some(&path)).unwrap();
        assert_eq!(config, again);
    }

    #[test]
    fn json_names_value_and_origin() {
        let (_, entries) = load(&Flags::default(), |_| None, None).unwrap();
        assert_eq!(as_json(&entries, true)["node_id"], json!({ "value": "1", "origin": "default" }));
        assert_eq!(as_json(&entries, false)["node_id"], json!("1"));
    }
}
