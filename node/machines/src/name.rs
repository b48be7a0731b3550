//! What may be a name. The rules are part of the replicated machines, so they must never depend on a Unicode table
//! that another build has in another version.

/// Longest topic name, in bytes: as in Kafka, so that a directory named after it and a partition fits 255 bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Longest name of a consumer group, in bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 255;
/// Longest member id, in bytes.
pub const MEMBER_ID_BYTES_MAX: usize = 255;
/// Longest address of a node, in bytes: a DNS name, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 253 + 1 + 5;

/// Longest name of a rack, in bytes.
pub const RACK_BYTES_MAX: usize = 255;

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No character at all.
    #[error("it is empty: give at least one character")]
    Empty,
    /// Too many bytes.
    #[error("it has {bytes} bytes, allowed are {bytes_max}: use a shorter one")]
    TooLong {
        /// Bytes of the name.
        bytes: usize,
        /// Limit.
        bytes_max: usize,
    },
    /// A character that a topic name must not have.
    #[error("it contains {character:?}: use only a-z, A-Z, 0-9, '.', '_' and '-'")]
    BadCharacter {
        /// The first such character.
        character: char,
    },
    /// A control character.
    #[error("it contains the control character {character:?}: use only printable characters")]
    ControlCharacter {
        /// The first such character.
        character: char,
    },
    /// A path component with a meaning of its own.
    #[error("\".\" and \"..\" are reserved: use another one")]
    Dots,
    /// Not `host:port`.
    #[error("it is not host:port with a port from 1 to 65535, without spaces")]
    NotHostPort,
}

/// Checks a topic's name: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
///
/// # Errors
/// What is wrong with it.
pub fn check_topic(name: &str) -> Result<(), NameError> {
    check_length(name, TOPIC_NAME_BYTES_MAX)?;
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(character) = name.chars().find(|c| !allowed(c)) {
        return Err(NameError::BadCharacter { character });
    }
    if matches!(name, "." | "..") {
        return Err(NameError::Dots);
    }
    Ok(())
}

/// Checks a consumer group's name: 1 to 255 bytes of UTF-8 without control characters.
///
/// # Errors
/// What is wrong with it.
pub fn check_group(name: &str) -> Result<(), NameError> {
    check_length(name, GROUP_NAME_BYTES_MAX)?;
    check_printable(name)
}

/// Checks a member id: 1 to 255 bytes of UTF-8 without control characters.
///
/// # Errors
/// What is wrong with it.
pub fn check_member(member: &str) -> Result<(), NameError> {
    check_length(member, MEMBER_ID_BYTES_MAX)?;
    check_printable(member)
}

/// Checks the name of a node's rack: up to 255 bytes of UTF-8 without control characters; empty is unknown.
///
/// # Errors
/// What is wrong with it.
pub fn check_rack(rack: &str) -> Result<(), NameError> {
    if rack.is_empty() {
        return Ok(());
    }
    check_length(rack, RACK_BYTES_MAX)?;
    check_printable(rack)
}

/// Checks a node's address: `host:port`.
///
/// # Errors
/// What is wrong with it.
pub fn check_address(address: &str) -> Result<(), NameError> {
    check_length(address, ADDRESS_BYTES_MAX)?;
    let (host, port) = address.rsplit_once(':').ok_or(NameError::NotHostPort)?;
    let port_is_good = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic()) || !port_is_good {
        return Err(NameError::NotHostPort);
    }
    Ok(())
}

fn check_length(name: &str, bytes_max: usize) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty),
        bytes if bytes > bytes_max => Err(NameError::TooLong { bytes, bytes_max }),
        _ => Ok(()),
    }
}

fn check_printable(name: &str) -> Result<(), NameError> {
    // The set of control characters is fixed for ever by Unicode's stability policy; "printable" is not.
    match name.chars().find(|c| c.is_control()) {
        Some(character) => Err(NameError::ControlCharacter { character }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names() {
        for good in ["a", "...", "Access-Log_2.v1", &"x".repeat(249)] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("", NameError::Empty),
            (".", NameError::Dots),
            ("..", NameError::Dots),
            ("a/b", NameError::BadCharacter { character: '/' }),
            ("naïve", NameError::BadCharacter { character: 'ï' }),
            ("a\0", NameError::BadCharacter { character: '\0' }),
        ] {
            assert_eq!(check_topic(bad), Err(error), "{bad}");
        }
        assert!(matches!(check_topic(&"x".repeat(250)), Err(NameError::TooLong { bytes: 250, .. })));
    }

    #[test]
    fn group_names() {
        for good in ["a", "größe / 1", &"x".repeat(255)] {
            assert_eq!(check_group(good), Ok(()), "{good}");
        }
        assert_eq!(check_group(""), Err(NameError::Empty));
        assert_eq!(check_group("a\n"), Err(NameError::ControlCharacter { character: '\n' }));
        assert!(matches!(check_group(&"ö".repeat(128)), Err(NameError::TooLong { bytes: 256, .. })));
    }

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:7070", "[::1]:1", "broker-1.example:65535"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in ["host", "host:", ":1", "host:0", "host:65536", "host:+1", "a b:1", "a\n:1"] {
            assert_eq!(check_address(bad), Err(NameError::NotHostPort), "{bad}");
        }
    }
}
