//! The compression codecs of the format. Compressing knows no limits; decompressing always has a cap, and takes memory
//! only as output really appears, so that a small input cannot make it take much.

mod lz4;
mod snappy;

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use crate::error::BatchError;

const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// zstd asks every decoder to support windows of 8 MiB (RFC 8878, §3.1.1.1.2); larger ones only if the cap is larger.
const ZSTD_WINDOW_LOG_MIN: u32 = 23;
const ZSTD_WINDOW_LOG_MAX: u32 = 30;

/// How the records of a batch are compressed. The numbers are those of the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy, in the block framing of the Java library (xerial) that Kafka clients write.
    Snappy = 2,
    /// LZ4 frame format, with independent blocks.
    Lz4 = 3,
    /// RFC 8878.
    Zstd = 4,
}

impl Codec {
    /// Every codec, in the order of their codes.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number in a batch's attributes.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The codec of a number in a batch's attributes.
    ///
    /// # Errors
    /// If there is none.
    pub fn from_code(code: u8) -> Result<Self, BatchError> {
        Self::ALL.into_iter().find(|codec| codec.code() == code).ok_or(BatchError::UnknownCodec { code })
    }

    /// The name in configuration and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Appends `plain`, compressed, to `out`.
    pub(crate) fn compress(self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
        let done = match self {
            Self::None => {
                out.extend_from_slice(plain);
                Ok(())
            }
            Self::Gzip => {
                let mut encoder = flate2::bufread::GzEncoder::new(plain, flate2::Compression::new(GZIP_LEVEL));
                encoder.read_to_end(out).map(drop)
            }
            Self::Snappy => snappy::compress(plain, out),
            Self::Lz4 => lz4::compress(plain, out),
            Self::Zstd => zstd::bulk::compress(plain, ZSTD_LEVEL).map(|compressed| out.extend(compressed)),
        };
        done.map_err(|error| BatchError::CompressFailed { codec: self, reason: error.to_string() })
    }

    /// `compressed`, decompressed; at most `bytes_max` bytes.
    pub(crate) fn decompress(self, compressed: &[u8], bytes_max: usize) -> Result<Vec<u8>, BatchError> {
        let mut out = Capped { plain: Vec::new(), bytes_max };
        let done = match self {
            Self::None => out.extend(compressed),
            Self::Gzip => out.fill_from(flate2::bufread::MultiGzDecoder::new(compressed)),
            Self::Snappy => snappy::decompress(compressed, &mut out),
            Self::Lz4 => lz4::decompress(compressed, &mut out),
            Self::Zstd => {
                zstd_decoder(compressed, bytes_max).map_err(DecompressError::from).and_then(|decoder| out.fill_from(decoder))
            }
        };
        match done {
            Ok(()) => Ok(out.plain),
            Err(DecompressError::TooLarge) => Err(BatchError::DecompressedTooLarge { codec: self, max: bytes_max }),
            Err(DecompressError::NoMemory) => Err(BatchError::NoMemory { codec: self }),
            Err(DecompressError::Malformed(reason)) => Err(BatchError::BadCompression { codec: self, reason }),
        }
    }
}

fn zstd_decoder(compressed: &[u8], bytes_max: usize) -> io::Result<zstd::stream::read::Decoder<'static, &[u8]>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
    let cap_log = usize::BITS - bytes_max.saturating_sub(1).leading_zeros();
    decoder.window_log_max(cap_log.clamp(ZSTD_WINDOW_LOG_MIN, ZSTD_WINDOW_LOG_MAX))?;
    Ok(decoder)
}

/// Why a decompressor stopped.
enum DecompressError {
    /// The output would exceed the cap.
    TooLarge,
    /// The system gave no memory for it.
    NoMemory,
    /// The input is not what the codec writes; says why.
    Malformed(String),
}

impl From<io::Error> for DecompressError {
    fn from(error: io::Error) -> Self {
        // zstd has no kind of its own for it, but a name.
        let no_memory = error.kind() == io::ErrorKind::OutOfMemory || error.to_string().contains("not enough memory");
        if no_memory { Self::NoMemory } else { Self::Malformed(error.to_string()) }
    }
}

/// Decompressed bytes, never more than `bytes_max`.
struct Capped {
    plain: Vec<u8>,
    bytes_max: usize,
}

impl Capped {
    fn left(&self) -> usize {
        self.bytes_max.saturating_sub(self.plain.len())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), DecompressError> {
        if bytes.len() > self.left() {
            return Err(DecompressError::TooLarge);
        }
        self.plain.try_reserve(bytes.len()).map_err(|_| DecompressError::NoMemory)?;
        self.plain.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends what `reader` yields to its end. One byte behind the cap is asked for, to tell "full" from "too large".
    fn fill_from(&mut self, reader: impl Read) -> Result<(), DecompressError> {
        let mut limited = reader.take((self.left() as u64).saturating_add(1));
        limited.read_to_end(&mut self.plain)?;
        if limited.limit() == 0 {
            return Err(DecompressError::TooLarge);
        }
        Ok(())
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no codec has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compression codec {0:?} is unknown: use none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCodecName(pub String);

impl FromStr for Codec {
    type Err = UnknownCodecName;

    fn from_str(name: &str) -> Result<Self, UnknownCodecName> {
        Self::ALL.into_iter().find(|codec| codec.name() == name).ok_or_else(|| UnknownCodecName(name.to_owned()))
    }
}
