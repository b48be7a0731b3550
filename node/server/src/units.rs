//! Numbers, sizes and durations as people write them: `64KiB`, `1GB`, `1h30m`, `500ms`. Errors complete "TEXT is …".

use std::num::IntErrorKind;
use std::time::Duration;

const TOO_LARGE: &str = "too large a number";

const SIZES: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

const SPANS_MS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a whole number.
///
/// # Errors
/// What would be right.
pub fn parse_number<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let number = text.trim().parse::<u64>().map_err(|error| match error.kind() {
        IntErrorKind::PosOverflow => TOO_LARGE.to_owned(),
        _ => "not a whole number: write 0 or more, in digits".to_owned(),
    })?;
    N::try_from(number).map_err(|_| TOO_LARGE.to_owned())
}

/// Reads a size in bytes: a whole number, or one with a unit (`KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB`, `TB`, `B`).
///
/// # Errors
/// What is wrong with the text, and what would be right.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text.trim());
    let factor = SIZES.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| *factor);
    (number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor)))
        .ok_or_else(|| "not a size: write bytes or a unit, such as 65536, 64KiB or 1GB".to_owned())
}

/// The shortest exact way to write a size.
pub fn format_size(bytes: u64) -> String {
    let unit = SIZES.iter().take(4).rev().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// Reads a duration: parts with the units `d`, `h`, `m`, `s`, `ms` one behind the other, or `0`.
///
/// # Errors
/// What is wrong with the text, and what would be right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a duration: write parts such as 7d, 1h30m, 5s or 500ms".to_owned();
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let (number, tail) = split_number(rest);
        let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let factor = SPANS_MS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let part = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        total_ms = part.and_then(|part| total_ms.checked_add(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration so that [`parse_duration`] reads it back; parts below a millisecond are dropped.
pub fn format_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, factor) in SPANS_MS {
        if left >= *factor {
            text.push_str(&format!("{}{name}", left / factor));
            left %= factor;
        }
    }
    if text.is_empty() { "0".to_owned() } else { text }
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse_size("64KiB").unwrap(), 65_536);
        assert_eq!(parse_size("1 GB").unwrap(), 1_000_000_000);
        assert_eq!(parse_size("42").unwrap(), 42);
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("7d").unwrap(), Duration::from_secs(7 * 86_400));
    }

    #[test]
    fn numbers_say_what_is_wrong_with_them() {
        assert_eq!(parse_number::<u32>("42").unwrap(), 42);
        for text in ["", "-1", "many", "1.5", "0x10"] {
            assert!(parse_number::<u64>(text).unwrap_err().starts_with("not a whole number"), "{text:?}");
        }
        assert_eq!(parse_number::<u32>("4294967296").unwrap_err(), TOO_LARGE);
        assert_eq!(parse_number::<u64>("99999999999999999999").unwrap_err(), TOO_LARGE);
    }

    #[test]
    fn refuses_what_is_unclear() {
        for text in ["", "12XB", "1.5GiB", "-1", "99999999999999TB", "KiB"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
        for text in ["", "5", "h", "1w", "5s3", "99999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes: u64, ms in 0u64..1 << 50) {
            prop_assert_eq!(parse_size(&format_size(bytes)).unwrap(), bytes);
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)).unwrap(), duration);
        }
    }
}
