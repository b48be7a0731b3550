//! Variable-length integers as Kafka records use them: zigzag, then base 128 with the low group first
//! (<https://protobuf.dev/programming-guides/encoding/#varints>, types `sint32` and `sint64`).
//!
//! A reader takes at most 5 (32 bits) or 10 (64 bits) bytes and refuses bits that do not fit.

/// Most bytes that a 32-bit integer takes.
pub const VARINT_BYTES_MAX: usize = 5;
/// Most bytes that a 64-bit integer takes.
pub const VARLONG_BYTES_MAX: usize = 10;

/// Why an integer could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// The bytes end inside the integer.
    #[error("the bytes end inside a variable-length integer")]
    Truncated,
    /// The integer takes more bits than its type has.
    #[error("a variable-length integer has more than {bits} bits")]
    TooLong {
        /// Bits of the type that was read.
        bits: u32,
    },
}

/// Reads a 32-bit integer and moves `bytes` behind it.
///
/// # Errors
/// If the bytes end first or the integer has more than 32 bits; `bytes` is then unspecified.
#[inline]
pub fn read_varint(bytes: &mut &[u8]) -> Result<i32, VarintError> {
    if let Some((&first, rest)) = bytes.split_first()
        && first < 0x80
    {
        *bytes = rest;
        return Ok(unzigzag(u64::from(first)) as i32);
    }
    Ok(unzigzag(read_groups(bytes, u32::BITS)?) as i32)
}

/// Reads a 64-bit integer and moves `bytes` behind it.
///
/// # Errors
/// If the bytes end first or the integer has more than 64 bits; `bytes` is then unspecified.
#[inline]
pub fn read_varlong(bytes: &mut &[u8]) -> Result<i64, VarintError> {
    Ok(unzigzag(read_groups(bytes, u64::BITS)?))
}

/// Appends a 32-bit integer.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, value: i32) {
    write_varlong(out, i64::from(value));
}

/// Appends a 64-bit integer. A value that fits 32 bits is written as [`write_varint`] writes it.
#[inline]
pub fn write_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes that `value` takes when written.
#[inline]
#[must_use]
pub fn varlong_len(value: i64) -> usize {
    let significant_bits = (u64::BITS - zigzag(value).leading_zeros()).max(1);
    significant_bits.div_ceil(7) as usize
}

fn read_groups(bytes: &mut &[u8], bits: u32) -> Result<u64, VarintError> {
    let mut value = 0_u64;
    let mut shift = 0;
    loop {
        let (&byte, rest) = bytes.split_first().ok_or(VarintError::Truncated)?;
        *bytes = rest;
        let group = u64::from(byte & 0x7f);
        // The last group may only carry what is left of the type.
        if shift + 7 > bits && group >> (bits - shift) != 0 {
            return Err(VarintError::TooLong { bits });
        }
        value |= group << shift;
        if byte < 0x80 {
            return Ok(value);
        }
        shift += 7;
        if shift >= bits {
            return Err(VarintError::TooLong { bits });
        }
    }
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn encoded(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        write_varlong(&mut out, value);
        out
    }

    #[test]
    fn known_encodings() {
        for (value, bytes) in [
            (0, vec![0x00]),
            (-1, vec![0x01]),
            (1, vec![0x02]),
            (-64, vec![0x7f]),
            (64, vec![0x80, 0x01]),
            (i64::from(i32::MAX), vec![0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MIN, vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            assert_eq!(encoded(value), bytes, "{value}");
        }
    }

    #[test]
    fn what_does_not_fit_or_end_is_refused() {
        let too_long = |bits| Err(VarintError::TooLong { bits });
        assert_eq!(read_varint(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), too_long(32).map(|()| 0));
        assert_eq!(read_varint(&mut &[0x80; 6][..]), too_long(32).map(|()| 0));
        assert_eq!(
            read_varlong(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]),
            too_long(64).map(|()| 0)
        );
        assert_eq!(read_varlong(&mut &[0x80; 11][..]), too_long(64).map(|()| 0));
        assert_eq!(read_varint(&mut &[][..]), Err(VarintError::Truncated));
        assert_eq!(read_varlong(&mut &[0x80][..]), Err(VarintError::Truncated));
    }

    proptest! {
        #[test]
        fn written_is_read(long in any::<i64>(), shift in 0_u32..64, behind in any::<u8>()) {
            let value = long >> shift;
            let mut bytes = encoded(value);
            prop_assert_eq!(bytes.len(), varlong_len(value));
            prop_assert!(bytes.len() <= VARLONG_BYTES_MAX);
            bytes.push(behind);
            let mut rest = &bytes[..];
            prop_assert_eq!(read_varlong(&mut rest), Ok(value));
            prop_assert_eq!(rest, &[behind][..]);
            if let Ok(short) = i32::try_from(value) {
                let mut rest = &bytes[..];
                prop_assert_eq!(read_varint(&mut rest), Ok(short));
                prop_assert!(bytes.len() - 1 <= VARINT_BYTES_MAX);
            }
        }
    }
}
