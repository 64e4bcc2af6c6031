//! Typed and bounded reads of one architecture's keys.

use super::{EMBEDDING, Error};
use crate::gguf::{File, Metadata, keys};

/// Widest vector accepted; the widest of known models has 53,248 values.
pub(super) const MAX_WIDTH: u64 = 1 << 20;
/// Most tokens in a vocabulary; known models have fewer than 300,000.
const MAX_VOCAB: u64 = 1 << 24;

/// Size of the vocabulary: rows of the embedding.
pub(super) fn vocab(file: &File) -> Result<usize, Error> {
    let embedding = file.tensor(EMBEDDING).ok_or(Error::NoEmbedding)?;
    let &[_, rows] = embedding.shape.as_slice() else { return Err(Error::NoEmbedding) };
    in_range(EMBEDDING.to_owned(), rows, MAX_VOCAB)
}

fn in_range(key: String, found: u64, max: u64) -> Result<usize, Error> {
    match usize::try_from(found) {
        Ok(size) if (1..=max).contains(&found) => Ok(size),
        _ => Err(Error::OutOfRange { key, found, min: 1, max }),
    }
}

/// Reads keys of one architecture.
pub(super) struct Reader<'a> {
    pub meta: &'a Metadata,
    pub arch: &'a str,
}

/// Makes a key from the architecture's name.
pub(super) type Key = fn(&str) -> String;

impl Reader<'_> {
    pub(super) fn size(&self, key: Key, max: u64) -> Result<usize, Error> {
        let key = key(self.arch);
        let found = self.meta.u64(&key)?;
        in_range(key, found, max)
    }

    pub(super) fn opt_size(&self, key: Key, max: u64) -> Result<Option<usize>, Error> {
        let key = key(self.arch);
        self.meta.opt_u64(&key)?.map(|found| in_range(key, found, max)).transpose()
    }

    pub(super) fn float(&self, key: Key, valid: fn(f32) -> bool, expected: &'static str) -> Result<f32, Error> {
        let key = key(self.arch);
        let found = self.meta.f32(&key)?;
        if found.is_finite() && valid(found) { Ok(found) } else { Err(Error::BadFloat { key, found, expected }) }
    }

    pub(super) fn positive(&self, key: Key) -> Result<Option<f32>, Error> {
        match self.meta.opt_f32(&key(self.arch))? {
            Some(_) => self.float(key, |x| x > 0.0, "finite and above 0").map(Some),
            None => Ok(None),
        }
    }

    /// A number from 0 on that stands for nothing at 0.
    pub(super) fn nonzero(&self, key: Key) -> Result<Option<f32>, Error> {
        match self.meta.opt_f32(&key(self.arch))? {
            Some(_) => Ok(Some(self.float(key, |x| x >= 0.0, "finite and at least 0")?).filter(|x| *x > 0.0)),
            None => Ok(None),
        }
    }

    pub(super) fn refuse_experts(&self) -> Result<(), Error> {
        let key = keys::expert_count(self.arch);
        match self.meta.opt_u64(&key)? {
            None | Some(0) => Ok(()),
            Some(found) => Err(Error::MixtureOfExperts { key, found }),
        }
    }

    pub(super) fn kv_heads(&self, heads: usize) -> Result<usize, Error> {
        let kv_heads = self.opt_size(keys::head_count_kv, MAX_WIDTH)?.unwrap_or(heads);
        if heads.is_multiple_of(kv_heads) {
            return Ok(kv_heads);
        }
        let (key, found, other) = (keys::head_count_kv(self.arch), kv_heads as u64, heads as u64);
        Err(Error::Contradiction { key, found, rule: "it must divide the number of query heads,", other })
    }

    pub(super) fn head_dim(&self, dim: usize, heads: usize) -> Result<usize, Error> {
        let head_dim = match self.opt_size(keys::key_length, MAX_WIDTH)? {
            Some(head_dim) => head_dim,
            None if dim.is_multiple_of(heads) => dim / heads,
            None => {
                let (key, found, other) = (keys::embedding_length(self.arch), dim as u64, heads as u64);
                return Err(Error::Contradiction { key, found, rule: "it must be a multiple of the heads,", other });
            }
        };
        match self.opt_size(keys::value_length, MAX_WIDTH)? {
            Some(value) if value != head_dim => {
                let (key, found, other) = (keys::value_length(self.arch), value as u64, head_dim as u64);
                Err(Error::Contradiction { key, found, rule: "keys and values must be equally wide,", other })
            }
            _ => Ok(head_dim),
        }
    }
}
