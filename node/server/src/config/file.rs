//! The configuration file: flat TOML, one `name = value` a line. Unknown names are errors, not noise.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use toml::Spanned;

use super::nearest::nearest;
use super::{ConfigError, SETTINGS};

/// Text by setting name, with the line where it stands.
pub type Found = BTreeMap<String, (String, usize)>;

/// Far more than all settings with their comments take.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a file.
pub fn read(path: &Path) -> Result<Found, ConfigError> {
    let shown = path.display().to_string();
    let text = read_text(path).map_err(|error| ConfigError::Unreadable { path: shown.clone(), error })?;
    parse(&text, &shown)
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes, and no configuration has")));
    }
    Ok(text)
}

fn parse(text: &str, path: &str) -> Result<Found, ConfigError> {
    let parsed: Result<BTreeMap<Spanned<String>, toml::Value>, _> = toml::from_str(text);
    let table = parsed.map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        why: error.message().to_owned(),
    })?;
    table.into_iter().map(|(name, value)| entry(path, line_of(text, name.span().start), name.into_inner(), value)).collect()
}

fn entry(path: &str, line: usize, name: String, value: toml::Value) -> Result<(String, (String, usize)), ConfigError> {
    if !SETTINGS.iter().any(|setting| setting.name == name) {
        return Err(ConfigError::UnknownKey { path: path.to_owned(), line, nearest: nearest(&name), name });
    }
    match value {
        toml::Value::String(text) => Ok((name, (text, line))),
        toml::Value::Integer(number) => Ok((name, (number.to_string(), line))),
        other => Err(ConfigError::WrongType { path: path.to_owned(), line, name, found: other.type_str() }),
    }
}

fn line_of(text: &str, position: usize) -> usize {
    text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn an_unknown_key_names_its_line_and_a_valid_one_if_that_may_be_meant() {
        let error = parse("# mine\n\ndata-dir = \"x\"", "f.toml").unwrap_err().to_string();
        assert_eq!(error, "f.toml:3: unknown key \"data-dir\": did you mean \"data_dir\"?");
        for text in ["[journal]\nbytes = 1", "color = \"red\"", "x = 1"] {
            let error = parse(text, "f.toml").unwrap_err().to_string();
            assert!(error.starts_with("f.toml:1: unknown key") && error.ends_with("shows all settings"), "{error}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = parse("node_id = 1\nhttp = \n", "f.toml").unwrap_err().to_string();
        assert!(error.starts_with("f.toml:2: "), "{error}");
    }

    #[test]
    fn only_text_and_whole_numbers_are_values() {
        let error = parse("listen = \"x\"\nnode_id = [1]", "f.toml").unwrap_err().to_string();
        assert!(error.starts_with("f.toml:2: node_id is of type array"), "{error}");
        assert_eq!(parse("node_id = 3", "f").unwrap()["node_id"], ("3".to_owned(), 1));
    }
}
