//! How a record is printed: a format string, compiled once, or a JSON object a line.

use std::io::{self, Write};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flotilla_client::{Chunk, ConsumedRecord};
use prost_types::Timestamp;
use serde::Serialize;

/// A compiled format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    Value,
    Timestamp,
    Headers,
    Json,
}

impl Default for Format {
    /// The value, one a line.
    fn default() -> Self {
        Self { parts: vec![Part::Value, Part::Text(b"\n".to_vec())] }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            let part = match letter {
                '%' => field(letters.next())?,
                '\\' => {
                    literal.push(escaped(letters.next())?);
                    continue;
                }
                plain => {
                    literal.extend(plain.encode_utf8(&mut [0; 4]).bytes());
                    continue;
                }
            };
            match part {
                Part::Text(text) => literal.extend(text),
                part => {
                    flush_literal(&mut literal, &mut parts);
                    parts.push(part);
                }
            }
        }
        flush_literal(&mut literal, &mut parts);
        Ok(Self { parts })
    }
}

fn flush_literal(literal: &mut Vec<u8>, parts: &mut Vec<Part>) {
    if !literal.is_empty() {
        parts.push(Part::Text(std::mem::take(literal)));
    }
}

fn field(letter: Option<char>) -> Result<Part, String> {
    Ok(match letter {
        Some('t') => Part::Topic,
        Some('p') => Part::Partition,
        Some('o') => Part::Offset,
        Some('k') => Part::Key,
        Some('v') => Part::Value,
        Some('T') => Part::Timestamp,
        Some('h') => Part::Headers,
        Some('%') => Part::Text(b"%".to_vec()),
        other => {
            let shown = other.map(String::from).unwrap_or_default();
            return Err(format!("%{shown} is no field: use %t %p %o %k %v %T %h, and %% for a percent sign"));
        }
    })
}

fn escaped(letter: Option<char>) -> Result<u8, String> {
    Ok(match letter {
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('r') => b'\r',
        Some('0') => 0,
        Some('\\') => b'\\',
        other => {
            let shown = other.map(String::from).unwrap_or_default();
            return Err(format!("\\{shown} is no escape: use \\n \\t \\r \\0, and \\\\ for a backslash"));
        }
    })
}

impl Format {
    /// One JSON object a line.
    pub fn json() -> Self {
        Self { parts: vec![Part::Json, Part::Text(b"\n".to_vec())] }
    }

    /// Prints a record. Keys and values are printed as they are; what is absent is empty.
    pub fn write(&self, out: &mut impl Write, chunk: &Chunk, record: &ConsumedRecord<'_>) -> io::Result<()> {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.write_all(text)?,
                Part::Topic => out.write_all(chunk.topic().as_bytes())?,
                Part::Partition => write!(out, "{}", chunk.partition())?,
                Part::Offset => write!(out, "{}", record.offset)?,
                Part::Key => out.write_all(record.key.unwrap_or_default())?,
                Part::Value => out.write_all(record.value.unwrap_or_default())?,
                Part::Timestamp => write!(out, "{}", time(record.timestamp_ms))?,
                Part::Headers => write_headers(out, record)?,
                Part::Json => serde_json::to_writer(&mut *out, &JsonRecord::new(chunk, record))?,
            }
        }
        Ok(())
    }
}

fn write_headers(out: &mut impl Write, record: &ConsumedRecord<'_>) -> io::Result<()> {
    for (index, header) in record.headers.iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        write!(out, "{}=", header.key)?;
        out.write_all(header.value.unwrap_or_default())?;
    }
    Ok(())
}

/// RFC 3339; milliseconds where there are any.
fn time(ms: i64) -> Timestamp {
    let since = Duration::from_millis(ms.unsigned_abs());
    let time = if ms < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) };
    // Years that a calendar cannot say are shown as the epoch.
    time.filter(|time| *time < UNIX_EPOCH + Duration::from_secs(253_402_300_800)).unwrap_or(SystemTime::UNIX_EPOCH).into()
}

#[derive(Debug, Serialize)]
struct JsonRecord<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp: String,
    timestamp_ms: i64,
    key: Option<JsonBytes<'a>>,
    value: Option<JsonBytes<'a>>,
    headers: Vec<JsonHeader<'a>>,
}

#[derive(Debug, Serialize)]
struct JsonHeader<'a> {
    name: &'a str,
    value: Option<JsonBytes<'a>>,
}

/// A string where the bytes are UTF-8, an object with one field where not.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum JsonBytes<'a> {
    Text(&'a str),
    Binary { base64: String },
}

impl<'a> JsonRecord<'a> {
    fn new(chunk: &'a Chunk, record: &ConsumedRecord<'a>) -> Self {
        let headers =
            record.headers.iter().map(|header| JsonHeader { name: header.key, value: header.value.map(JsonBytes::new) });
        Self {
            topic: chunk.topic(),
            partition: chunk.partition(),
            offset: record.offset,
            timestamp: time(record.timestamp_ms).to_string(),
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(JsonBytes::new),
            value: record.value.map(JsonBytes::new),
            headers: headers.collect(),
        }
    }
}

impl<'a> JsonBytes<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(|_| Self::Binary { base64: base64(bytes) }, Self::Text)
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| char::from(LETTERS.get(bits as usize & 63).copied().unwrap_or(b'='));
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().zip([16, 8, 0]).fold(0, |bits, (byte, shift)| bits | u32::from(*byte) << shift);
        for (index, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            text.push(if index <= group.len() { letter(bits >> shift) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn formats_are_compiled() {
        let text = |text: &str| Part::Text(text.as_bytes().to_vec());
        let format: Format = r"%p %o 100%%\t%k=%v\n".parse().unwrap();
        let expected = [Part::Partition, text(" "), Part::Offset, text(" 100%\t"), Part::Key, text("="), Part::Value, text("\n")];
        assert_eq!(format.parts, expected);
        assert!("%x".parse::<Format>().unwrap_err().contains("%x"));
        assert!(r"\x".parse::<Format>().is_err() && "%".parse::<Format>().is_err());
    }

    /// Vectors of RFC 4648 §10.
    #[test]
    fn base64_as_in_the_rfc() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_marked() {
        assert_eq!(serde_json::to_string(&JsonBytes::new(b"a\"b")).unwrap(), r#""a\"b""#);
        assert_eq!(serde_json::to_string(&JsonBytes::new(&[0xff, 0xfe])).unwrap(), r#"{"base64":"//4="}"#);
    }

    #[test]
    fn any_timestamp_can_be_shown() {
        assert_eq!(time(1_500).to_string(), "1970-01-01T00:00:01.500Z");
        for ms in [i64::MIN, -1, 0, i64::MAX] {
            assert!(time(ms).to_string().ends_with('Z'));
        }
    }
}
