//! Arguments from candid bytes, with quotas: a hostile message is refused before it costs more than
//! receiving it did. A message that does not decode is rejected by trapping, which undoes nothing since
//! nothing was done.

use std::ops::Range;

use candid::types::{Serializer, Type};
use candid::utils::decode_args_with_config;
use candid::{CandidType, DecoderConfig};
use ic_cdk::api::trap;
use serde::de::DeserializeOwned;

use crate::api::{UploadChunk, UploadChunkArg};

/// Cost units as candid counts them: one per byte of text or blob, 7 per token, 30 per chat message, four per
/// byte of type table. 4 million admits any message of 2 MiB that is text, blob or tokens. A message full of
/// empty chat messages is refused after 0.68e9 instructions (measured in the shim); without the quota it would
/// decode 700,000 of them.
const DECODING_QUOTA: usize = 4_000_000;
/// Units for data that the method did not ask for: a few unknown fields of a newer client.
const SKIPPING_QUOTA: usize = 10_000;
/// No argument's type table comes near this.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// A message that is no argument of the method.
#[derive(Debug, thiserror::Error)]
#[error("the argument cannot be decoded: {0}")]
pub struct Refused(candid::Error);

/// The one argument of a method; a message that has none traps.
pub fn argument<T: CandidType + DeserializeOwned>(message: Vec<u8>) -> T {
    decoded(&message).unwrap_or_else(|refused| trap(refused.to_string()))
}

/// The one argument of a method.
///
/// # Errors
/// The message is something else, or costs too much to decode.
pub fn decoded<T: CandidType + DeserializeOwned>(message: &[u8]) -> Result<T, Refused> {
    // An empty message stands for no arguments; an optional one is then absent.
    let bytes = if message.is_empty() { b"DIDL\0\0" } else { message };
    let (argument,) = decode_args_with_config::<(T,)>(bytes, &config()).map_err(Refused)?;
    Ok(argument)
}

/// A chunk of an upload, still in its message.
pub struct ChunkMessage {
    message: Vec<u8>,
    upload_id: u64,
    offset: u64,
    bytes: Range<usize>,
}

/// The argument of `upload_chunk`: only looked at, never copied; a message that has none traps.
pub fn chunk(message: Vec<u8>) -> ChunkMessage {
    decoded_chunk(message).unwrap_or_else(|refused| trap(refused.to_string()))
}

/// The argument of `upload_chunk`.
///
/// # Errors
/// As [`decoded`].
pub fn decoded_chunk(message: Vec<u8>) -> Result<ChunkMessage, Refused> {
    let (chunk,) = decode_args_with_config::<(UploadChunk<'_>,)>(&message, &config()).map_err(Refused)?;
    let start = chunk.bytes.as_ptr().addr().saturating_sub(message.as_ptr().addr());
    let (upload_id, offset, bytes) = (chunk.upload_id, chunk.offset, start..start + chunk.bytes.len());
    Ok(ChunkMessage { message, upload_id, offset, bytes })
}

impl ChunkMessage {
    /// The chunk.
    pub fn chunk(&self) -> UploadChunk<'_> {
        let bytes = self.message.get(self.bytes.clone()).unwrap_or_default();
        UploadChunk { upload_id: self.upload_id, offset: self.offset, bytes }
    }
}

/// In the interface it is an [`UploadChunkArg`].
impl CandidType for ChunkMessage {
    fn _ty() -> Type {
        UploadChunkArg::_ty()
    }

    fn id() -> candid::types::TypeId {
        UploadChunkArg::id()
    }

    fn idl_serialize<S: Serializer>(&self, serializer: S) -> Result<(), S::Error> {
        self.chunk().idl_serialize(serializer)
    }
}

fn config() -> DecoderConfig {
    let mut config = DecoderConfig::new();
    config
        .set_decoding_quota(DECODING_QUOTA)
        .set_skipping_quota(SKIPPING_QUOTA)
        .set_max_header_len(MAX_HEADER_BYTES)
        .set_full_error_message(false);
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{InitArg, SessionCreateArg, SessionInput, SessionOptions};

    #[test]
    fn a_chunk_is_borrowed_from_its_message() {
        let arg = UploadChunkArg { upload_id: 1, offset: 2, bytes: (0..=255).collect() };
        let message = candid::encode_one(&arg).unwrap();
        let address = message.as_ptr();
        let decoded = chunk(message);
        assert_eq!(decoded.chunk(), UploadChunk { upload_id: 1, offset: 2, bytes: &arg.bytes });
        assert_eq!(decoded.message.as_ptr(), address);
        assert_eq!(candid::encode_one(decoded).unwrap(), candid::encode_one(&arg).unwrap());
        let empty = UploadChunkArg { upload_id: 1, offset: 2, bytes: vec![] };
        assert_eq!(chunk(candid::encode_one(empty).unwrap()).chunk().bytes, b"");
    }

    #[test]
    fn an_absent_argument_is_none() {
        assert_eq!(argument::<Option<InitArg>>(vec![]), None);
        assert_eq!(argument::<Option<InitArg>>(b"DIDL\0\0".to_vec()), None);
        assert_eq!(
            argument::<Option<InitArg>>(candid::encode_one(Some(InitArg::default())).unwrap()),
            Some(InitArg::default())
        );
    }

    fn create(input: SessionInput) -> Vec<u8> {
        candid::encode_one(SessionCreateArg { input, options: SessionOptions::default() }).unwrap()
    }

    #[test]
    fn the_quotas_admit_what_a_message_can_carry_and_stop_lists_of_nothing() {
        let admits = |message: &[u8]| decode_args_with_config::<(SessionCreateArg,)>(message, &config()).is_ok();
        assert!(admits(&create(SessionInput::Text("x".repeat(2 << 20)))));
        assert!(admits(&create(SessionInput::Tokens(vec![1; 500_000]))));
        let empty = || crate::api::ChatMessage::User(crate::api::MessageText { content: String::new() });
        assert!(admits(&create(SessionInput::Messages((0..10_000).map(|_| empty()).collect()))));
        let hostile = create(SessionInput::Messages((0..700_000).map(|_| empty()).collect()));
        assert!(hostile.len() < 2 << 20 && !admits(&hostile));
        let skipped = candid::encode_args((
            SessionCreateArg { input: SessionInput::Text(String::new()), options: SessionOptions::default() },
            vec![0u8; 20_000],
        ))
        .unwrap();
        assert!(!admits(&skipped), "a long unknown argument");
    }
}
