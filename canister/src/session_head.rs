//! The head of a session: all that lists, queries and ownership checks need, in few bytes. Owner, counts
//! and state; no text, no tokens. Knows nothing of where heads are stored.

use candid::Principal;
use model_core::model::{CachePrecision, Model};

use crate::api::{Error, FinishReason, SessionState, SessionStatus};

const VERSION: u8 = 3;
/// The first version, without the bits of keys and values, which were 16. The second has no usage and no `record_bytes`.
const VERSION_BEFORE_BITS: u8 = 1;
const MAX_PRINCIPAL_BYTES: usize = 29;

/// What is known about a session without touching its tokens. In stable memory:
///
/// ```text
/// 0         1           2        31           63           71           79
/// | version | owner len | owner  | model hash | created_ns | updated_ns |
/// | 1       | u8        | 29 B   | 32 B       | u64 LE     | u64 LE     |
/// 79        80      81              85                 89                 93
/// | running | finish | prompt_tokens | generated_tokens | remaining_tokens |
/// | u8      | u8     | u32 LE        | u32 LE           | u32 LE           |
/// 93           101               109             110         114            118            122
/// | text_bytes | cache_positions | kv_cache_bits | usage day | usage tokens | record_bytes | error as candid ...
/// | u64 LE     | u64 LE          | u8            | u32 LE    | u32 LE       | u32 LE       | empty for none
/// ```
/// Version 2 has neither usage nor `record_bytes`, which are 0 then, version 1 no `kv_cache_bits` either, which are 16.
/// Running: 0 no, 1 yes, 2 the session lives as long as a call of `v0_chat` or `v1_chat`. Finish: 0 not finished, 1 end of generation, 2 stop string, 3 length, 4 context full, 5 cancelled.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// Who made the session.
    pub owner: Principal,
    /// SHA-256 of the file of the model it was made for.
    pub model: [u8; 32],
    /// Creation, nanoseconds since 1970.
    pub created_ns: u64,
    /// Last change, nanoseconds since 1970.
    pub updated_ns: u64,
    /// Who advances it.
    pub driver: Driver,
    /// Why it is over; none while it generates.
    pub finish: Option<FinishReason>,
    /// Tokens given.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub generated_tokens: u32,
    /// Tokens that may still be generated.
    pub remaining_tokens: u32,
    /// Bytes of generated text.
    pub text_bytes: u64,
    /// Positions that its cache can come to hold.
    pub cache_positions: u64,
    /// How exactly its keys and values are kept.
    pub kv_cache: CachePrecision,
    /// Tokens that were computed for it on one day.
    pub usage: Usage,
    /// Size of its record.
    pub record_bytes: u32,
    /// What stopped the canister from advancing it.
    pub error: Option<Error>,
}

/// Who advances a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// Its owner, call by call.
    Owner,
    /// The canister.
    Canister,
    /// The call of `v0_chat` or `v1_chat` that it answers and ends with.
    Call,
}

/// Tokens computed on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Days since 1970, UTC.
    pub day: u32,
    /// How many.
    pub tokens: u32,
}

impl Head {
    /// Bytes that its cache can come to take.
    pub fn cache_bytes(&self, model: &Model) -> u64 {
        model.cache_bytes(self.cache_positions as usize, self.kv_cache)
    }

    /// The candid form; `cached_tokens` is what the heap has.
    pub fn status(&self, session_id: u64, cached_tokens: u32) -> SessionStatus {
        SessionStatus {
            session_id,
            state: self.state(cached_tokens),
            running: self.driver == Driver::Canister,
            prompt_tokens: self.prompt_tokens,
            cached_tokens,
            generated_tokens: self.generated_tokens,
            remaining_tokens: self.remaining_tokens,
            text_bytes: self.text_bytes,
            kv_cache_bits: self.kv_cache.bits(),
            error: self.error.clone(),
        }
    }

    fn state(&self, cached_tokens: u32) -> SessionState {
        match self.finish {
            Some(reason) => SessionState::Finished(reason),
            // The last token is computed together with the sampling of the next one.
            None if cached_tokens + 1 >= self.prompt_tokens + self.generated_tokens => SessionState::Generating,
            None => SessionState::Prefill,
        }
    }

    /// The bytes described above.
    pub fn to_bytes(&self) -> Vec<u8> {
        let owner = self.owner.as_slice();
        let mut padded = [0; MAX_PRINCIPAL_BYTES];
        padded.iter_mut().zip(owner).for_each(|(to, from)| *to = *from);
        let mut bytes = vec![VERSION, owner.len() as u8];
        bytes.extend(padded);
        bytes.extend(self.model);
        bytes.extend(self.created_ns.to_le_bytes());
        bytes.extend(self.updated_ns.to_le_bytes());
        bytes.extend([self.driver as u8, finish_code(self.finish)]);
        bytes.extend(self.prompt_tokens.to_le_bytes());
        bytes.extend(self.generated_tokens.to_le_bytes());
        bytes.extend(self.remaining_tokens.to_le_bytes());
        bytes.extend(self.text_bytes.to_le_bytes());
        bytes.extend(self.cache_positions.to_le_bytes());
        bytes.push(self.kv_cache.bits());
        bytes.extend([self.usage.day, self.usage.tokens, self.record_bytes].into_iter().flat_map(u32::to_le_bytes));
        let error = self.error.as_ref().and_then(|error| candid::encode_one(error).ok());
        bytes.extend(error.unwrap_or_default());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote, now or in an earlier version.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::parse(bytes).ok_or_else(|| Error::Damaged {
            message: format!("a session head of {} bytes is not of version {VERSION}", bytes.len()),
        })
    }

    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let [version, owner_len] = take(&mut bytes)?;
        let owner: [u8; MAX_PRINCIPAL_BYTES] = take(&mut bytes)?;
        if !(VERSION_BEFORE_BITS..=VERSION).contains(&version) {
            return None;
        }
        Some(Self {
            owner: Principal::try_from_slice(owner.get(..usize::from(owner_len))?).ok()?,
            model: take(&mut bytes)?,
            created_ns: u64::from_le_bytes(take(&mut bytes)?),
            updated_ns: u64::from_le_bytes(take(&mut bytes)?),
            driver: driver_of(take(&mut bytes)?)?,
            finish: finish_of(take(&mut bytes)?)?,
            prompt_tokens: take_u32(&mut bytes)?,
            generated_tokens: take_u32(&mut bytes)?,
            remaining_tokens: take_u32(&mut bytes)?,
            text_bytes: u64::from_le_bytes(take(&mut bytes)?),
            cache_positions: u64::from_le_bytes(take(&mut bytes)?),
            kv_cache: match version {
                VERSION_BEFORE_BITS => CachePrecision::Bits16,
                _ => CachePrecision::from_bits(u8::from_le_bytes(take(&mut bytes)?))?,
            },
            usage: match version {
                VERSION => Usage { day: take_u32(&mut bytes)?, tokens: take_u32(&mut bytes)? },
                _ => Usage::default(),
            },
            record_bytes: if version == VERSION { take_u32(&mut bytes)? } else { 0 },
            error: if bytes.is_empty() { None } else { Some(candid::decode_one(bytes).ok()?) },
        })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes).map(u32::from_le_bytes)
}

fn driver_of([code]: [u8; 1]) -> Option<Driver> {
    [Driver::Owner, Driver::Canister, Driver::Call].into_iter().find(|driver| *driver as u8 == code)
}

const FINISHED: [FinishReason; 6] = [
    FinishReason::EndOfGeneration,
    FinishReason::StopString,
    FinishReason::Length,
    FinishReason::ContextFull,
    FinishReason::Cancelled,
    FinishReason::GrammarFailed,
];

fn finish_code(finish: Option<FinishReason>) -> u8 {
    match finish {
        None => 0,
        Some(FinishReason::EndOfGeneration) => 1,
        Some(FinishReason::StopString) => 2,
        Some(FinishReason::Length) => 3,
        Some(FinishReason::ContextFull) => 4,
        Some(FinishReason::Cancelled) => 5,
        Some(FinishReason::GrammarFailed) => 6,
    }
}

fn finish_of([code]: [u8; 1]) -> Option<Option<FinishReason>> {
    match usize::from(code).checked_sub(1) {
        None => Some(None),
        Some(index) => FINISHED.get(index).copied().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            owner: Principal::from_slice(&[7; 29]),
            model: [9; 32],
            created_ns: 1,
            updated_ns: 2,
            driver: Driver::Canister,
            finish: None,
            prompt_tokens: 3,
            generated_tokens: 4,
            remaining_tokens: 5,
            text_bytes: 6,
            cache_positions: 7,
            kv_cache: CachePrecision::Bits8,
            usage: Usage { day: 8, tokens: 9 },
            record_bytes: 10,
            error: Some(Error::ModelMissing),
        }
    }

    #[test]
    fn survives_encoding_in_every_state_and_for_every_owner() {
        for finish in FINISHED.map(Some).into_iter().chain([None]) {
            for owner in [Principal::anonymous(), Principal::management_canister(), Principal::from_slice(&[7; 29])] {
                for error in [None, Some(Error::ModelChanged)] {
                    for (kv_cache, driver) in [
                        (CachePrecision::Bits16, Driver::Owner),
                        (CachePrecision::Bits8, Driver::Canister),
                        (CachePrecision::Bits8, Driver::Call),
                    ] {
                        let head = Head { owner, finish, error: error.clone(), kv_cache, driver, ..head() };
                        assert_eq!(Head::from_bytes(&head.to_bytes()), Ok(head));
                    }
                }
            }
        }
    }

    #[test]
    fn heads_of_earlier_versions_are_read() {
        for error in [None, Some(Error::ModelChanged)] {
            let head = Head { usage: Usage::default(), record_bytes: 0, error, ..head() };
            let mut old = head.to_bytes();
            old.drain(110..122);
            old[0] = 2;
            assert_eq!(Head::from_bytes(&old), Ok(head.clone()));
            assert_eq!(old.remove(109), 8);
            old[0] = 1;
            assert_eq!(Head::from_bytes(&old), Ok(Head { kv_cache: CachePrecision::Bits16, ..head }));
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = head().to_bytes();
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((bytes[0], bytes[1], &bytes[2..31], &bytes[31..63]), (3, 29, &[7; 29][..], &[9; 32][..]));
        assert_eq!((u64_at(63), u64_at(71), u64_at(93), u64_at(101)), (1, 2, 6, 7));
        assert_eq!((bytes[79], bytes[80], bytes[81], bytes[85], bytes[89]), (1, 0, 3, 4, 5));
        assert_eq!((bytes[109], bytes[110], bytes[114], bytes[118]), (8, 8, 9, 10));
        assert_eq!(&bytes[122..126], b"DIDL");
    }

    #[test]
    fn the_state_tells_prefill_from_generating() {
        let states = [0, 5, 6, 7].map(|cached| head().status(1, cached).state);
        use SessionState::*;
        assert_eq!(states, [Prefill, Prefill, Generating, Generating]);
        let over = Head { finish: Some(FinishReason::Length), ..head() };
        assert_eq!(over.status(1, 0).state, Finished(FinishReason::Length));
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let bytes = head().to_bytes();
        for len in 0..122 {
            assert!(Head::from_bytes(&bytes[..len]).is_err());
        }
        for (at, value) in [(0, 0), (0, 4), (1, 30), (79, 3), (80, 7), (109, 4), (123, 0xff)] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert!(Head::from_bytes(&damaged).is_err(), "byte {at}");
        }
    }
}
