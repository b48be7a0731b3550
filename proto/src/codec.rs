//! The codec of all calls: protobuf, encoded into a buffer that is as large as the message.
//!
//! `tonic_prost`'s own lets the buffer grow as it is filled: by copying, and to up to twice of what a message takes, which an
//! answer that waits for its reader holds as long as it waits.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// Encodes `T`, decodes `U`.
#[derive(Debug, Clone)]
pub struct ExactCodec<T, U> {
    messages: PhantomData<(T, U)>,
}

/// Encodes `T`.
#[derive(Debug, Clone)]
pub struct ExactEncoder<T> {
    message: PhantomData<T>,
}

impl<T, U> Default for ExactCodec<T, U> {
    fn default() -> Self {
        Self { messages: PhantomData }
    }
}

impl<T, U> Codec for ExactCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ExactEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ExactEncoder { message: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl<T: Message> Encoder for ExactEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(item.encoded_len());
        item.encode_raw(to);
        Ok(())
    }
}
