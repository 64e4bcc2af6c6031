//! How exactly the keys and values of a new session are kept: what it asks for, or what the settings and the room for
//! caches give.

use model_core::model::{CachePrecision, Model};

use crate::api::{Config, Error, KvCacheBits};

impl Config {
    /// The precision of a session with `model` that asks for so many `bits`, or for none.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if keys and values are never kept with so many bits.
    pub fn kv_cache_of(&self, model: &Model, bits: Option<u8>) -> Result<CachePrecision, Error> {
        let Some(bits) = bits else { return Ok(self.default_kv_cache(model)) };
        CachePrecision::from_bits(bits).ok_or_else(|| Error::InvalidArgument {
            field: "kv_cache_bits".into(),
            reason: format!("{bits} is neither 16 nor 8"),
        })
    }

    /// The precision of a session with `model` that asks for none. It goes by the longest session, not by the one that
    /// begins, so that the length of a prompt does not decide the bits of the answer.
    pub fn default_kv_cache(&self, model: &Model) -> CachePrecision {
        let longest = model.config.context_length.min(self.max_session_tokens as usize);
        let wide_fits = || model.cache_bytes(longest, CachePrecision::Bits16) <= self.cache_heap_bytes;
        match self.kv_cache_bits {
            KvCacheBits::Bits8 => CachePrecision::Bits8,
            KvCacheBits::Auto if !wide_fits() => CachePrecision::Bits8,
            KvCacheBits::Auto | KvCacheBits::Bits16 => CachePrecision::Bits16,
        }
    }
}
