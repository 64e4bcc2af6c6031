//! The shape of a model, read from the metadata and validated once. The only reader of the architecture's keys; after
//! this nothing asks the file what the model looks like.

use crate::gguf::{File, KeyError, Metadata, keys};

/// Architectures that can be loaded.
pub const SUPPORTED_ARCHITECTURES: &[&str] = &["llama"];
/// Name of the embedding, whose rows are the vocabulary.
pub(crate) const EMBEDDING: &str = "token_embd.weight";

/// Widest vector accepted; the widest of known models has 53,248 values.
const MAX_WIDTH: u64 = 1 << 20;
/// Most layers accepted; known models have fewer than 200.
const MAX_LAYERS: u64 = 1 << 12;
/// Most tokens in a vocabulary; known models have fewer than 300,000.
const MAX_VOCAB: u64 = 1 << 24;
/// Longest context accepted. Nothing is allocated by it.
const MAX_CONTEXT: u64 = 1 << 30;
/// Most bytes that 32 positions of the key-value cache may take.
const MAX_CACHE_SEGMENT_BYTES: u64 = 1 << 30;
/// `{arch}.rope.freq_base` if the file does not say (Su et al. 2021).
const DEFAULT_ROPE_THETA: f32 = 10_000.0;

/// Why a model's description cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A key is missing or has the wrong type.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The architecture is not supported.
    #[error("architecture {found:?} is not supported; supported are: {}", SUPPORTED_ARCHITECTURES.join(", "))]
    UnsupportedArchitecture {
        /// What the file says.
        found: String,
    },
    /// A number is too small or too large to be true.
    #[error("{key} is {found}; it must be {min} to {max}, so the file is damaged or needs another program")]
    OutOfRange {
        /// The key, or the tensor whose shape has the number.
        key: String,
        /// The number found.
        found: u64,
        /// Smallest that would do.
        min: u64,
        /// Largest that would do.
        max: u64,
    },
    /// A float is not what it must be.
    #[error("{key} is {found}; it must be {expected}")]
    BadFloat {
        /// The key.
        key: String,
        /// The value found.
        found: f32,
        /// What would do.
        expected: &'static str,
    },
    /// Two numbers contradict each other.
    #[error("{key} is {found}, but {rule} {other}; the file is damaged")]
    Contradiction {
        /// The key.
        key: String,
        /// Its value.
        found: u64,
        /// What must hold between the two.
        rule: &'static str,
        /// The other value.
        other: u64,
    },
    /// The context extension is not supported.
    #[error("{key} is {found:?}; supported are: none, linear, and factors in the tensor rope_freqs.weight")]
    UnsupportedRopeScaling {
        /// The key.
        key: String,
        /// What the file says.
        found: String,
    },
    /// The feed-forward network is a mixture of experts.
    #[error("{key} is {found}: mixtures of experts are not supported; use a dense model")]
    MixtureOfExperts {
        /// The key.
        key: String,
        /// Number of experts.
        found: u64,
    },
    /// There is no embedding matrix.
    #[error("the file has no matrix {EMBEDDING}; it is no complete language model")]
    NoEmbedding,
    /// The key-value cache would not be addressable.
    #[error("32 positions of key-value cache would take {bytes} bytes, at most {max} are possible")]
    CacheTooLarge {
        /// Bytes of one segment of the cache.
        bytes: u64,
        /// The most accepted.
        max: u64,
    },
}

/// The shape of a model. All numbers are checked against each other and against sane limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of the architecture, such as `llama`.
    pub architecture: String,
    /// Name of the model for people, if the file has one.
    pub name: Option<String>,
    /// Tokens in the vocabulary: rows of the embedding.
    pub vocab: usize,
    /// Longest context that the model was made for, in tokens.
    pub context_length: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// Key and value heads per layer; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Leading dimensions of a head that are rotated; even.
    pub rotary_dim: usize,
    /// Width inside the feed-forward network.
    pub hidden: usize,
    /// Epsilon of the norms.
    pub norm_epsilon: f32,
    /// Factor of the attention scores.
    pub attention_scale: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Divides the rotary frequencies (linear context extension); 1 for none.
    pub rope_scale: f32,
}

impl Config {
    /// Reads and validates the description in the metadata; the size of the vocabulary comes from the embedding.
    ///
    /// # Errors
    /// [`Error`] names the key that is missing, absurd or not supported.
    pub fn from_gguf(file: &File) -> Result<Self, Error> {
        let meta = file.metadata();
        let arch = meta.str(keys::ARCHITECTURE)?;
        if !SUPPORTED_ARCHITECTURES.contains(&arch) {
            return Err(Error::UnsupportedArchitecture { found: arch.to_owned() });
        }
        let reader = Reader { meta, arch };
        reader.refuse_experts()?;
        let dim = reader.size(keys::embedding_length, MAX_WIDTH)?;
        let heads = reader.size(keys::head_count, MAX_WIDTH)?;
        let head_dim = reader.head_dim(dim, heads)?;
        let config = Self {
            architecture: arch.to_owned(),
            name: meta.opt_str(keys::NAME)?.map(str::to_owned),
            vocab: vocab(file)?,
            context_length: reader.size(keys::context_length, MAX_CONTEXT)?,
            dim,
            layers: reader.size(keys::block_count, MAX_LAYERS)?,
            heads,
            kv_heads: reader.kv_heads(heads)?,
            head_dim,
            rotary_dim: reader.rotary_dim(head_dim)?,
            hidden: reader.size(keys::feed_forward_length, MAX_WIDTH)?,
            norm_epsilon: reader.float(keys::rms_epsilon, |x| x >= 0.0, "finite and at least 0")?,
            attention_scale: reader.attention_scale(head_dim)?,
            rope_theta: reader.positive(keys::rope_freq_base)?.unwrap_or(DEFAULT_ROPE_THETA),
            rope_scale: reader.rope_scale()?,
        };
        config.check_products(arch)?;
        Ok(config)
    }

    /// Width of all query heads.
    pub fn query_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn check_products(&self, arch: &str) -> Result<(), Error> {
        let width = self.heads as u64 * self.head_dim as u64;
        if width > MAX_WIDTH {
            return Err(Error::OutOfRange { key: keys::key_length(arch), found: width, min: 1, max: MAX_WIDTH });
        }
        let heads = 2 * self.layers as u64 * self.kv_heads as u64;
        let bytes = heads.saturating_mul(32 * (2 * self.head_dim as u64 + 20));
        if bytes > MAX_CACHE_SEGMENT_BYTES {
            return Err(Error::CacheTooLarge { bytes, max: MAX_CACHE_SEGMENT_BYTES });
        }
        Ok(())
    }
}

fn vocab(file: &File) -> Result<usize, Error> {
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
struct Reader<'a> {
    meta: &'a Metadata,
    arch: &'a str,
}

/// Makes a key from the architecture's name.
type Key = fn(&str) -> String;

impl Reader<'_> {
    fn size(&self, key: Key, max: u64) -> Result<usize, Error> {
        let key = key(self.arch);
        let found = self.meta.u64(&key)?;
        in_range(key, found, max)
    }

    fn opt_size(&self, key: Key, max: u64) -> Result<Option<usize>, Error> {
        let key = key(self.arch);
        self.meta.opt_u64(&key)?.map(|found| in_range(key, found, max)).transpose()
    }

    fn float(&self, key: Key, valid: fn(f32) -> bool, expected: &'static str) -> Result<f32, Error> {
        let key = key(self.arch);
        let found = self.meta.f32(&key)?;
        if found.is_finite() && valid(found) { Ok(found) } else { Err(Error::BadFloat { key, found, expected }) }
    }

    fn positive(&self, key: Key) -> Result<Option<f32>, Error> {
        match self.meta.opt_f32(&key(self.arch))? {
            Some(_) => self.float(key, |x| x > 0.0, "finite and above 0").map(Some),
            None => Ok(None),
        }
    }

    fn refuse_experts(&self) -> Result<(), Error> {
        let key = keys::expert_count(self.arch);
        match self.meta.opt_u64(&key)? {
            None | Some(0) => Ok(()),
            Some(found) => Err(Error::MixtureOfExperts { key, found }),
        }
    }

    fn kv_heads(&self, heads: usize) -> Result<usize, Error> {
        let kv_heads = self.opt_size(keys::head_count_kv, MAX_WIDTH)?.unwrap_or(heads);
        if heads.is_multiple_of(kv_heads) {
            return Ok(kv_heads);
        }
        let (key, found, other) = (keys::head_count_kv(self.arch), kv_heads as u64, heads as u64);
        Err(Error::Contradiction { key, found, rule: "it must divide the number of query heads,", other })
    }

    fn head_dim(&self, dim: usize, heads: usize) -> Result<usize, Error> {
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

    fn rotary_dim(&self, head_dim: usize) -> Result<usize, Error> {
        let rotary_dim = self.opt_size(keys::rope_dimension_count, MAX_WIDTH)?.unwrap_or(head_dim);
        if rotary_dim.is_multiple_of(2) && rotary_dim <= head_dim {
            return Ok(rotary_dim);
        }
        let (key, found, other) = (keys::rope_dimension_count(self.arch), rotary_dim as u64, head_dim as u64);
        Err(Error::Contradiction { key, found, rule: "it must be even and at most the width of a head,", other })
    }

    fn attention_scale(&self, head_dim: usize) -> Result<f32, Error> {
        let default = 1.0 / (head_dim as f32).sqrt();
        Ok(self.positive(keys::attention_scale)?.unwrap_or(default))
    }

    fn rope_scale(&self) -> Result<f32, Error> {
        let key = keys::rope_scaling_type(self.arch);
        match self.meta.opt_str(&key)? {
            Some("none") => return Ok(1.0),
            None | Some("linear") => {}
            Some(found) => return Err(Error::UnsupportedRopeScaling { key, found: found.to_owned() }),
        }
        match self.positive(keys::rope_scaling_factor)? {
            Some(factor) => Ok(factor),
            None => Ok(self.positive(keys::rope_scale_linear)?.unwrap_or(1.0)),
        }
    }
}
