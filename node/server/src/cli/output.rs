//! Printing results: data to stdout, as a table or for programs.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use super::exit::CliError;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// For people, with more columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// Prints `value` for programs, or what `text` makes of it for people (told whether it may be wide).
///
/// # Errors
/// If stdout cannot be written; a closed pipe is no error.
pub fn print<T: Serialize>(output: Output, value: &T, text: impl FnOnce(&T, bool) -> String) -> Result<(), CliError> {
    let shown = match output {
        Output::Text => text(value, false),
        Output::Wide => text(value, true),
        Output::Json => serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?,
        Output::Yaml => serde_yaml_ng::to_string(value).map_err(|error| CliError::Failed(error.to_string()))?,
    };
    let ended = if shown.is_empty() || shown.ends_with('\n') { "" } else { "\n" };
    match write!(io::stdout().lock(), "{shown}{ended}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(CliError::io("stdout")),
    }
}

/// Says something on stderr. Whoever closed that does not want to know.
pub fn note(what: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{what}");
}

/// A number of things: `1 record`, `2 records`.
pub fn count(number: impl Into<u64>, thing: &str) -> String {
    match number.into() {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// Rows in columns as wide as their widest cell.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|title| title.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!(
            (count(0u32, "record"), count(1u32, "record"), count(2u64, "record")),
            ("0 records".into(), "1 record".into(), "2 records".into())
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME    N\na       1\nlonger  22\n");
    }
}
