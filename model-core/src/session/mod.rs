//! A generation as a resumable state machine: tokens, position, cache, sampler and text in one place, so that nothing
//! restarts between calls. Knows the model it is stepped with, but no clock, no storage and no transport.
//!
//! There is one way to compute: tokens that are not in the cache yet are fed in batches, and after the last one a token is
//! sampled and joins the queue. Prompts, generation, appended turns and the rebuilding of a lost cache are all this same
//! loop, and as results depend neither on batches nor on interruptions, they are the same bits.
//!
//! ```
//! # #[cfg(feature = "fixtures")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use model_core::budget::CountDown;
//! use model_core::fixtures::TinyLlama;
//! use model_core::model::{LoadOptions, Model};
//! use model_core::prompt;
//! use model_core::session::{Session, SessionOptions, SessionRecord, Step};
//!
//! let model = Model::load(&TinyLlama::default().build(), &LoadOptions::default())?;
//! let tokens = prompt::text(&model.tokenizer, "Once upon a time", false)?;
//! let options = SessionOptions { max_tokens: 8, ..SessionOptions::default() };
//! let mut session = Session::new(&model, tokens, options)?;
//! // A call may be as short as one layer of one batch, and a session may be stored between any two calls.
//! for _ in 0..10 {
//!     session.step(&model, &mut CountDown::new(1))?;
//! }
//! let stored = session.record().to_bytes();
//! let mut session = Session::restore(&model, SessionRecord::from_bytes(&stored)?)?;
//! while !matches!(session.step(&model, &mut CountDown::new(100))?, Step::Finished(_)) {}
//! println!("{}", session.text());
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "fixtures"))]
//! # fn main() {}
//! ```

mod digest;
mod error;
mod options;
mod record;
mod step;
mod text;

pub use digest::digest;
pub use error::Error;
pub use options::{MAX_LOGPROBS, MAX_PREFILL_BATCH, MAX_STOP_STRING_BYTES, MAX_STOP_STRINGS, SessionOptions};
pub use record::{RecordError, SessionRecord};
pub use step::{FinishReason, Step};

use crate::TokenId;
use crate::config::Config;
use crate::grammar::{self, Constraint, Grammar, Vocabulary};
use crate::model::kv_cache::KvCache;
use crate::model::{CachePrecision, Forward, Model};
use crate::profile::{Counter, Profile};
use crate::sample::{Sampler, TokenLogprob};
use text::Output;

/// One conversation with a model. Dropping it, or [`Session::drop_cache`], loses nothing that a [`SessionRecord`] and
/// some computing cannot restore.
#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
    /// The shape of the model it was made for.
    config: Config,
    /// Prompt, generated, appended, generated and so on.
    tokens: Vec<TokenId>,
    /// How many of `tokens` were generated.
    generated: usize,
    /// Index in `tokens` where the present answer begins.
    answer_start: usize,
    /// Most tokens of the present answer.
    limit: u32,
    output: Output,
    sampler: Sampler,
    /// What the tokens have to follow.
    constraint: Option<Constraint>,
    digests: Vec<u64>,
    /// For each generated token its own and those of its alternatives.
    logprobs: Vec<TokenLogprob>,
    finish: Option<FinishReason>,
    work: Work,
}

/// What is rebuilt rather than kept.
#[derive(Debug)]
struct Work {
    cache: KvCache,
    forward: Forward,
    phase: Phase,
    /// `[vocab]`, of the last position that was computed; empty before.
    logits: Vec<f32>,
}

/// What the next unit of work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Begin a batch.
    Batch,
    /// The next layer of the batch.
    Layers,
    /// The output head on the last position, and a token.
    Head,
}

impl Work {
    fn new(model: &Model, precision: CachePrecision) -> Self {
        Self { cache: model.new_cache(precision), forward: Forward::default(), phase: Phase::Batch, logits: Vec::new() }
    }
}

impl Session {
    /// A session that will continue `prompt`; nothing is computed yet.
    ///
    /// # Errors
    /// The prompt is empty, does not fit the context or has tokens beyond the vocabulary; or an option has no meaning.
    pub fn new(model: &Model, prompt: Vec<TokenId>, mut options: SessionOptions) -> Result<Self, crate::Error> {
        options.validate()?;
        // A vocabulary has no more alternatives than tokens.
        options.logprobs = options.logprobs.map(|count| count.min(model.config.vocab as u32));
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt.into());
        }
        check_tokens(&model.config, &prompt, 0)?;
        let sampler = Sampler::new(options.sampling).map_err(Error::from)?;
        let constraint = constraint(&options).map_err(Error::from)?;
        Ok(Self {
            config: model.config.clone(),
            generated: 0,
            answer_start: prompt.len(),
            limit: options.max_tokens,
            tokens: prompt,
            output: Output::default(),
            sampler,
            constraint,
            digests: Vec::new(),
            logprobs: Vec::new(),
            finish: None,
            work: Work::new(model, options.kv_cache),
            options,
        })
    }

    /// Goes on with a finished session: `tokens` follow everything before them, and up to `max_tokens` are generated
    /// after them. What was computed is kept.
    ///
    /// # Errors
    /// The session is still generating ([`Session::cancel`] ends that), or `tokens` are empty, beyond the vocabulary or
    /// more than the context holds.
    pub fn append(&mut self, model: &Model, tokens: Vec<TokenId>, max_tokens: u32) -> Result<(), crate::Error> {
        self.check_model(model)?;
        if self.finish.is_none() {
            return Err(Error::StillGenerating.into());
        }
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt.into());
        }
        check_tokens(&self.config, &tokens, self.tokens.len())?;
        self.constraint.as_mut().map_or(Ok(()), Constraint::restart).map_err(Error::from)?;
        self.tokens.extend(tokens);
        self.answer_start = self.tokens.len();
        self.limit = max_tokens;
        self.output.begin_answer();
        self.finish = None;
        Ok(())
    }

    /// Becomes the session that [`Session::new`] makes of `prompt` and `options`, and keeps what was computed of the tokens
    /// with which both begin, unless keys and values are to be kept otherwise: a conversation that goes on is computed from
    /// where it changed. Results are those of the new session, bit for bit.
    ///
    /// # Errors
    /// As [`Session::new`], or the session belongs to another model; it stays as it was.
    pub fn restart(
        &mut self,
        model: &Model,
        prompt: Vec<TokenId>,
        options: SessionOptions,
    ) -> Result<(), crate::Error> {
        self.check_model(model)?;
        let mut next = Self::new(model, prompt, options)?;
        if next.options.kv_cache == self.options.kv_cache {
            let computed = self.tokens.iter().take(self.cached_tokens());
            let shared = computed.zip(&next.tokens).take_while(|(before, now)| before == now).count();
            std::mem::swap(&mut next.work.cache, &mut self.work.cache);
            // The last token is computed in any case: what follows is sampled from its logits.
            next.work.cache.truncate(shared.min(next.tokens.len() - 1));
        }
        *self = next;
        Ok(())
    }

    /// Ends the generation here and returns the text that was held back. Does nothing to a finished session.
    pub fn cancel(&mut self) -> String {
        if self.finish.is_some() {
            return String::new();
        }
        self.work.phase = Phase::Batch;
        self.finish = Some(FinishReason::Cancelled);
        self.output.finish()
    }

    /// Gives the cache and all buffers back; the next step begins to rebuild them.
    pub fn drop_cache(&mut self) {
        let Config { layers, kv_heads, head_dim, .. } = self.config;
        self.work = Work {
            cache: KvCache::new(layers, kv_heads, head_dim, self.options.kv_cache),
            forward: Forward::default(),
            phase: Phase::Batch,
            logits: Vec::new(),
        };
    }

    /// The options it was made with.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// All tokens: prompt, generated, appended, generated and so on.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Tokens that were given: the prompt and what was appended.
    pub fn prompt_tokens(&self) -> usize {
        self.tokens.len() - self.generated
    }

    /// Tokens generated since creation.
    pub fn generated_tokens(&self) -> usize {
        self.generated
    }

    /// Tokens of which keys and values are at hand.
    pub fn cached_tokens(&self) -> usize {
        self.work.cache.len()
    }

    /// Tokens that may still be generated in this answer.
    pub fn remaining_tokens(&self) -> u32 {
        match self.finish {
            Some(_) => 0,
            None => self.limit.saturating_sub(self.generated().len() as u32),
        }
    }

    /// The tokens of the present answer, an end-of-generation token included. They follow the prompt, or what was
    /// appended last.
    pub fn generated(&self) -> &[TokenId] {
        self.tokens.get(self.answer_start..).unwrap_or_default()
    }

    /// The text of the present answer as far as it is certain: whole characters, no part of a stop string.
    pub fn text(&self) -> &str {
        self.output.answer()
    }

    /// The text of all answers since creation, one after the other.
    pub fn full_text(&self) -> &str {
        self.output.text()
    }

    /// Why the session is over; `None` while it generates.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Logits (`[vocab]`, before penalties) that the last token was sampled from; empty if there are none at hand.
    pub fn logits(&self) -> &[f32] {
        &self.work.logits
    }

    /// With the option `audit`: the [`digest`] of the logits behind each generated token, in order.
    pub fn digests(&self) -> &[u64] {
        &self.digests
    }

    /// With the option `logprobs`: for each generated token, in order, its own log probability, and after it those of the
    /// likeliest tokens in its place, the likeliest first.
    pub fn logprobs(&self) -> impl ExactSizeIterator<Item = &[TokenLogprob]> {
        self.logprobs.chunks(self.options.logprobs_per_token())
    }

    /// Attributes the work of the next steps to stages, by what `counter` says. `None` ends that. Results do not change.
    pub fn set_profile(&mut self, counter: Option<Counter>) {
        self.work.forward.profile_mut().start(counter);
    }

    /// As [`Session::set_profile`], and [`Profile::stretches`] tells every stretch of work.
    pub fn set_trace(&mut self, counter: Counter) {
        self.work.forward.profile_mut().start_log(counter);
    }

    /// What the steps since [`Session::set_profile`] took.
    pub fn profile(&self) -> &Profile {
        self.work.forward.profile()
    }

    /// Bytes that the key-value cache takes.
    pub fn cache_bytes(&self) -> usize {
        self.work.cache.bytes()
    }

    fn check_model(&self, model: &Model) -> Result<(), Error> {
        if self.config == model.config { Ok(()) } else { Err(Error::OtherModel) }
    }
}

/// What the tokens of a session with these options have to follow.
fn constraint(options: &SessionOptions) -> Result<Option<Constraint>, grammar::Error> {
    let grammar = options.grammar.as_deref().map(Grammar::parse).transpose()?;
    grammar.map(Constraint::new).transpose()
}

/// Checks tokens that are to follow `before` others. One position must be left for a generated token.
fn check_tokens(config: &Config, tokens: &[TokenId], before: usize) -> Result<(), Error> {
    check_room(config, before + tokens.len() + 1)?;
    check_vocabulary(config, tokens, before)
}

fn check_vocabulary(config: &Config, tokens: &[TokenId], before: usize) -> Result<(), Error> {
    match tokens.iter().position(|&id| id as usize >= config.vocab) {
        Some(index) => Err(Error::UnknownToken { index: before + index, id: tokens[index], vocab: config.vocab }),
        None => Ok(()),
    }
}

/// Checks that `positions` positions fit the context.
fn check_room(config: &Config, positions: usize) -> Result<(), Error> {
    let context_length = config.context_length;
    if positions > context_length { Err(Error::ContextTooShort { positions, context_length }) } else { Ok(()) }
}
