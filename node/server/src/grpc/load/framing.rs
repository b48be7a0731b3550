//! Where messages begin and end in the bytes of a call: each has one byte of flags and four of length before it (see
//! "Length-Prefixed-Message" of the specification "gRPC over HTTP2").

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

const PREFIX_BYTES: usize = 5;

/// A message as it is sent, in memory of its own and no more than it takes.
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(length as u32);
    message.encode_raw(&mut framed);
    framed.freeze()
}

/// Follows the bytes of one direction.
#[derive(Debug, Default)]
pub struct Framing {
    /// Of the message that is not complete.
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// What is missing behind its prefix.
    missing: u64,
    unfinished: u64,
}

impl Framing {
    /// Takes the next bytes. Whether a message that had not begun before is unfinished behind them.
    pub fn take(&mut self, mut bytes: &[u8]) -> bool {
        let mut began = self.unfinished == 0;
        while !bytes.is_empty() {
            let wanted = match PREFIX_BYTES - self.prefix_bytes {
                0 => usize::try_from(self.missing).unwrap_or(usize::MAX),
                prefix => prefix,
            };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            self.unfinished += now.len() as u64;
            if self.prefix_bytes < PREFIX_BYTES {
                self.take_prefix(now);
            } else {
                self.missing -= now.len() as u64;
            }
            if self.prefix_bytes == PREFIX_BYTES && self.missing == 0 {
                (self.prefix_bytes, self.unfinished, began) = (0, 0, true);
            }
            bytes = later;
        }
        began && self.unfinished > 0
    }

    /// Bytes of the message that is not complete.
    pub fn unfinished(&self) -> u64 {
        self.unfinished
    }

    fn take_prefix(&mut self, bytes: &[u8]) {
        let room = self.prefix.iter_mut().skip(self.prefix_bytes);
        room.zip(bytes).for_each(|(to, from)| *to = *from);
        self.prefix_bytes += bytes.len();
        let [_, length @ ..] = self.prefix;
        if self.prefix_bytes == PREFIX_BYTES {
            self.missing = u64::from(u32::from_be_bytes(length));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend((length as u32).to_be_bytes());
        message.resize(PREFIX_BYTES + length, 7);
        message
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let bytes = [message(3), message(0), message(300), message(1)].concat();
        let ends = [8, 13, 318, 324];
        for piece in [1, 2, 3, 5, 7, 100, 400] {
            let mut framing = Framing::default();
            let mut at = 0;
            for part in bytes.chunks(piece) {
                let before = ends.iter().filter(|end| **end <= at).count();
                let was_inside = framing.unfinished() > 0;
                let began = framing.take(part);
                at += part.len();
                let begin = ends.iter().filter(|end| **end <= at).max().copied().unwrap_or(0);
                assert_eq!(framing.unfinished(), (at - begin) as u64, "{piece} to {at}");
                let passed = ends.iter().filter(|end| **end <= at).count() > before;
                assert_eq!(began, at > begin && (passed || !was_inside), "{piece} to {at}");
            }
        }
    }

    #[test]
    fn a_message_is_framed_as_it_is_found() {
        let framed = framed(&flotilla_proto::v1::Credit { records: 1, bytes: 300 });
        assert_eq!(framed, [0, 0, 0, 0, 5, 8, 1, 16, 0xac, 2].as_slice());
        assert!(!Framing::default().take(&framed), "it is complete");
    }

    #[test]
    fn a_message_of_the_greatest_length_is_counted() {
        let mut framing = Framing::default();
        assert!(framing.take(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2]));
        assert!(!framing.take(&[3]));
        assert_eq!(framing.unfinished(), 8);
    }
}
