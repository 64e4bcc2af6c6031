//! What survives an upgrade: everything of a session but its cache, as versioned bytes.
//!
//! ```text
//! offset  bytes  content (little endian)
//!      0      4  magic "ILSR"
//!      4      2  version, 1
//!      6      1  flags: 1 ignore_eos, 2 audit, 4 logprobs, 8 keys and values of 8 bits, else 16, 16 a grammar,
//!                32 parse_special, 64 tools or template variables
//!      7      1  finish reason: 0 none, 1 end of generation, 2 stop string, 3 length, 4 context full, 5 cancelled
//!      8      4  max_tokens as given                 u32
//!     12      4  most tokens of the present answer   u32
//!     16      4  prefill_batch                       u32
//!     20      4  temperature                         f32
//!     24      4  top_k                               u32
//!     28      4  top_p                               f32
//!     32      4  min_p                               f32
//!     36      4  repeat_penalty                      f32
//!     40      4  repeat_last_n                       u32
//!     44      4  frequency_penalty                   f32
//!     48      4  presence_penalty                    f32
//!     52      8  seed                                u64
//!     60      8  state of the random numbers         u64
//!     68      4  tokens generated                    u32
//!     72      4  index of the answer's first token   u32
//!     76      4  index of the answer in the text     u32
//!     80         tokens:  count u32, u32 each
//!                digests: count u32, u64 each
//!                text shown:              length u32, UTF-8
//!                text held back:          length u32, UTF-8
//!                incomplete character:    length u32, at most 3 bytes
//!                stop strings: count u32, for each length u32, UTF-8
//!                grammar, if there is one: length u32, UTF-8
//!                log probabilities, if they are kept: alternatives u32, count u32, token u32 and f32 each
//!                tools and template variables, if there are any: length u32, JSON [[tool, …], {name: value, …}]
//! ```
//!
//! Nothing follows. Records come from storage that others may have written, so every field is checked.

use super::text::Output;
use super::{Error, FinishReason, Session, SessionOptions, Work, check_room, check_vocabulary, constraint};
use crate::TokenId;
use crate::model::{CachePrecision, Model};
use crate::prompt::InputOptions;
use crate::sample::{Sampler, Sampling, TokenLogprob};

const MAGIC: [u8; 4] = *b"ILSR";
const VERSION: u16 = 1;
const REASONS: [Option<FinishReason>; 7] = [
    None,
    Some(FinishReason::EndOfGeneration),
    Some(FinishReason::StopString),
    Some(FinishReason::Length),
    Some(FinishReason::ContextFull),
    Some(FinishReason::Cancelled),
    Some(FinishReason::GrammarFailed),
];

/// Why bytes are no session record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The first four bytes are not `ILSR`.
    #[error("it does not begin with \"ILSR\"")]
    BadMagic,
    /// A version that this code does not know.
    #[error("its version is {found}, only {VERSION} is known")]
    UnknownVersion {
        /// The version found.
        found: u16,
    },
    /// The bytes end inside a field.
    #[error("it ends inside {field}")]
    Truncated {
        /// The field.
        field: &'static str,
    },
    /// Bytes are left over.
    #[error("{extra} bytes follow its end")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// A field has a value that no session can have.
    #[error("{field} has an impossible value")]
    Impossible {
        /// The field.
        field: &'static str,
    },
}

/// A session without its cache. [`Session::restore`] makes it a session again, which goes on with the same bits.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRecord {
    options: SessionOptions,
    tokens: Vec<TokenId>,
    generated: usize,
    answer_start: usize,
    limit: u32,
    rng_state: u64,
    digests: Vec<u64>,
    logprobs: Vec<TokenLogprob>,
    finish: Option<FinishReason>,
    output: Output,
}

impl Session {
    /// Everything that has to be kept of this session.
    pub fn record(&self) -> SessionRecord {
        SessionRecord {
            options: self.options.clone(),
            tokens: self.tokens.clone(),
            generated: self.generated,
            answer_start: self.answer_start,
            limit: self.limit,
            rng_state: self.sampler.rng_state(),
            digests: self.digests.clone(),
            logprobs: self.logprobs.clone(),
            finish: self.finish,
            output: self.output.clone(),
        }
    }

    /// The session of a record. Its cache is empty: the next steps compute all tokens again, in batches.
    ///
    /// # Errors
    /// The record does not fit the model.
    pub fn restore(model: &Model, record: SessionRecord) -> Result<Self, crate::Error> {
        // Only an unfinished session needs room for one more token.
        check_vocabulary(&model.config, &record.tokens, 0)?;
        check_room(&model.config, record.tokens.len() + usize::from(record.finish.is_none()))?;
        let sampler = Sampler::resume(record.options.sampling, record.rng_state).map_err(Error::from)?;
        // It takes in the tokens of the answer again before the next token is sampled.
        let constraint = constraint(&record.options).map_err(Error::from)?;
        Ok(Self {
            config: model.config.clone(),
            tokens: record.tokens,
            generated: record.generated,
            answer_start: record.answer_start,
            limit: record.limit,
            output: record.output,
            sampler,
            constraint,
            digests: record.digests,
            logprobs: record.logprobs,
            finish: record.finish,
            work: Work::new(model, record.options.kv_cache),
            options: record.options,
        })
    }
}

impl SessionRecord {
    /// The options of the session.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// See [`Session::tokens`].
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// See [`Session::generated_tokens`].
    pub fn generated_tokens(&self) -> usize {
        self.generated
    }

    /// See [`Session::remaining_tokens`].
    pub fn remaining_tokens(&self) -> u32 {
        match self.finish {
            Some(_) => 0,
            None => self.limit.saturating_sub((self.tokens.len() - self.answer_start) as u32),
        }
    }

    /// See [`Session::full_text`].
    pub fn full_text(&self) -> &str {
        self.output.text()
    }

    /// See [`Session::digests`].
    pub fn digests(&self) -> &[u64] {
        &self.digests
    }

    /// See [`Session::logprobs`].
    pub fn logprobs(&self) -> impl ExactSizeIterator<Item = &[TokenLogprob]> {
        self.logprobs.chunks(self.options.logprobs_per_token())
    }

    /// See [`Session::finish_reason`].
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// See [`Session::cancel`].
    pub fn cancel(&mut self) -> String {
        if self.finish.is_some() {
            return String::new();
        }
        self.finish = Some(FinishReason::Cancelled);
        self.output.finish()
    }

    /// The bytes to be stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128 + 4 * self.tokens.len() + 8 * self.digests.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let options = &self.options;
        let narrow = options.kv_cache == CachePrecision::Bits8;
        let (logprobs, grammar) = (options.logprobs.is_some(), options.grammar.is_some());
        let (parse_special, variables) = (options.input.parse_special, variables_json(&options.input));
        let told = variables.is_some();
        let flags = [options.ignore_eos, options.audit, logprobs, narrow, grammar, parse_special, told];
        bytes.push(flags.iter().enumerate().map(|(bit, &flag)| u8::from(flag) << bit).sum());
        bytes.push(REASONS.iter().position(|&reason| reason == self.finish).unwrap_or_default() as u8);
        let sampling = options.sampling.to_words();
        let words = [options.max_tokens, self.limit, options.prefill_batch as u32].into_iter().chain(sampling);
        bytes.extend(words.flat_map(u32::to_le_bytes));
        bytes.extend([options.sampling.seed, self.rng_state].into_iter().flat_map(u64::to_le_bytes));
        let counts = [self.generated, self.answer_start, self.output.answer_start(), self.tokens.len()];
        bytes.extend(counts.into_iter().flat_map(|count| (count as u32).to_le_bytes()));
        bytes.extend(self.tokens.iter().flat_map(|token| token.to_le_bytes()));
        bytes.extend_from_slice(&(self.digests.len() as u32).to_le_bytes());
        bytes.extend(self.digests.iter().flat_map(|digest| digest.to_le_bytes()));
        push_string(&mut bytes, self.output.text().as_bytes());
        push_string(&mut bytes, self.output.held().as_bytes());
        push_string(&mut bytes, self.output.pending());
        bytes.extend_from_slice(&(options.stop.len() as u32).to_le_bytes());
        options.stop.iter().chain(&options.grammar).for_each(|text| push_string(&mut bytes, text.as_bytes()));
        if let Some(alternatives) = options.logprobs {
            bytes.extend([alternatives, self.logprobs.len() as u32].into_iter().flat_map(u32::to_le_bytes));
            let words = self.logprobs.iter().flat_map(|token| [token.id, token.logprob.to_bits()]);
            bytes.extend(words.flat_map(u32::to_le_bytes));
        }
        variables.iter().for_each(|json| push_string(&mut bytes, json.as_bytes()));
        bytes
    }

    /// Reads what [`SessionRecord::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`RecordError`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader { rest: bytes };
        if reader.array("the magic")? != MAGIC {
            return Err(RecordError::BadMagic);
        }
        let version = u16::from_le_bytes(reader.array("the version")?);
        if version != VERSION {
            return Err(RecordError::UnknownVersion { found: version });
        }
        let record = reader.record()?;
        match reader.rest.len() {
            0 => record.checked(),
            extra => Err(RecordError::TrailingBytes { extra }),
        }
    }

    fn logprobs_expected(&self) -> usize {
        self.options.logprobs.map_or(0, |_| self.generated * self.options.logprobs_per_token())
    }

    /// Checks what fields must have in common.
    fn checked(self) -> Result<Self, RecordError> {
        let tokens = self.tokens.len();
        let checks = [
            ("the options", self.options.validate().is_ok()),
            ("the count of tokens", tokens > 0),
            ("the count of generated tokens", self.generated < tokens),
            (
                "the index of the answer",
                self.answer_start <= tokens && self.answer_start >= tokens - self.generated && self.answer_start > 0,
            ),
            ("the count of digests", self.digests.len() == if self.options.audit { self.generated } else { 0 }),
            ("the count of log probabilities", self.logprobs.len() == self.logprobs_expected()),
            ("the index of the answer's text", self.output.text().is_char_boundary(self.output.answer_start())),
            ("the text held back", self.finish.is_none() || self.output.held().is_empty()),
        ];
        match checks.into_iter().find(|(_, valid)| !valid) {
            Some((field, _)) => Err(RecordError::Impossible { field }),
            None => Ok(self),
        }
    }
}

/// Tools and template variables, if there are any.
fn variables_json(input: &InputOptions) -> Option<String> {
    let none = input.tools.is_empty() && input.named.is_empty();
    if none { None } else { serde_json::to_string(&(&input.tools, &input.named)).ok() }
}

fn push_string(bytes: &mut Vec<u8>, string: &[u8]) {
    bytes.extend_from_slice(&(string.len() as u32).to_le_bytes());
    bytes.extend_from_slice(string);
}

/// The bytes that are left.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(RecordError::Truncated { field })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(RecordError::Truncated { field })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, RecordError> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, RecordError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A count and as many items of `N` bytes.
    fn items<const N: usize, T>(&mut self, field: &'static str, from: fn([u8; N]) -> T) -> Result<Vec<T>, RecordError> {
        let count = self.u32(field)? as usize;
        let bytes = count.checked_mul(N).ok_or(RecordError::Truncated { field })?;
        let (items, _) = self.take(field, bytes)?.as_chunks();
        Ok(items.iter().copied().map(from).collect())
    }

    fn string(&mut self, field: &'static str) -> Result<String, RecordError> {
        String::from_utf8(self.items(field, u8::from_le_bytes)?).map_err(|_| RecordError::Impossible { field })
    }

    fn record(&mut self) -> Result<SessionRecord, RecordError> {
        let [flags, reason] = self.array("the flags")?;
        if flags > 127 {
            return Err(RecordError::Impossible { field: "the flags" });
        }
        let finish = REASONS.get(usize::from(reason)).copied();
        let finish = finish.ok_or(RecordError::Impossible { field: "the finish reason" })?;
        let [max_tokens, limit, prefill_batch] = self.words("the limits")?;
        let mut sampling = Sampling::from_words(self.words("the sampling options")?);
        sampling.seed = self.u64("the seed")?;
        let rng_state = self.u64("the state of the random numbers")?;
        let [generated, answer_start, text_start] = self.words("the counts")?;
        let tokens = self.items("the tokens", u32::from_le_bytes)?;
        let digests = self.items("the digests", u64::from_le_bytes)?;
        let output = self.output(text_start as usize)?;
        let mut options = SessionOptions {
            max_tokens,
            sampling,
            stop: self.stop_strings()?,
            ignore_eos: flags & 1 != 0,
            audit: flags & 2 != 0,
            kv_cache: if flags & 8 != 0 { CachePrecision::Bits8 } else { CachePrecision::Bits16 },
            grammar: if flags & 16 != 0 { Some(self.string("the grammar")?) } else { None },
            logprobs: None,
            input: InputOptions { parse_special: flags & 32 != 0, ..InputOptions::default() },
            prefill_batch: prefill_batch as usize,
        };
        let mut logprobs = Vec::new();
        if flags & 4 != 0 {
            (options.logprobs, logprobs) = self.logprobs()?;
        }
        if flags & 64 != 0 {
            let json = self.string("the template variables")?;
            let parsed = serde_json::from_str(&json);
            (options.input.tools, options.input.named) =
                parsed.map_err(|_| RecordError::Impossible { field: "the template variables" })?;
        }
        let (generated, answer_start) = (generated as usize, answer_start as usize);
        Ok(SessionRecord {
            options,
            tokens,
            generated,
            answer_start,
            limit,
            rng_state,
            digests,
            logprobs,
            finish,
            output,
        })
    }

    /// How many alternatives there are, and all log probabilities.
    fn logprobs(&mut self) -> Result<(Option<u32>, Vec<TokenLogprob>), RecordError> {
        let alternatives = self.u32("the log probabilities")?;
        let logprobs = self.items("the log probabilities", |bytes: [u8; 8]| {
            let word = u64::from_le_bytes(bytes);
            TokenLogprob { id: word as u32, logprob: f32::from_bits((word >> 32) as u32) }
        })?;
        Ok((Some(alternatives), logprobs))
    }

    fn words<const N: usize>(&mut self, field: &'static str) -> Result<[u32; N], RecordError> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.u32(field)?;
        }
        Ok(words)
    }

    fn output(&mut self, answer_start: usize) -> Result<Output, RecordError> {
        let (text, held) = (self.string("the text")?, self.string("the text held back")?);
        let pending = self.items("the incomplete character", u8::from_le_bytes)?;
        let output = Output::from_parts(&pending, held, text, answer_start);
        // What is not the beginning of one character does not stay pending.
        if output.pending() == pending {
            Ok(output)
        } else {
            Err(RecordError::Impossible { field: "the incomplete character" })
        }
    }

    fn stop_strings(&mut self) -> Result<Vec<String>, RecordError> {
        let count = self.u32("the stop strings")?;
        // Each takes at least its length field, so a false count ends with the bytes.
        (0..count).map(|_| self.string("the stop strings")).collect()
    }
}

impl Sampling {
    /// All options but the seed, in the order of the record.
    fn to_words(self) -> [u32; 8] {
        [
            self.temperature.to_bits(),
            self.top_k,
            self.top_p.to_bits(),
            self.min_p.to_bits(),
            self.repeat_penalty.to_bits(),
            self.repeat_last_n,
            self.frequency_penalty.to_bits(),
            self.presence_penalty.to_bits(),
        ]
    }

    fn from_words(words: [u32; 8]) -> Self {
        let [temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, frequency, presence] = words;
        Self {
            temperature: f32::from_bits(temperature),
            top_k,
            top_p: f32::from_bits(top_p),
            min_p: f32::from_bits(min_p),
            repeat_penalty: f32::from_bits(repeat_penalty),
            repeat_last_n,
            frequency_penalty: f32::from_bits(frequency),
            presence_penalty: f32::from_bits(presence),
            seed: 0,
        }
    }
}
