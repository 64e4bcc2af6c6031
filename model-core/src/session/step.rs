//! The cursor: what the next unit of work is, and what comes of it.

use serde::{Deserialize, Serialize};

use super::{Phase, Session, digest};
use crate::budget::Budget;
use crate::model::Model;
use crate::profile::Stage;
use crate::sample::log_probability;
use crate::{Error, TokenId};

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// The model sampled an end-of-generation token.
    EndOfGeneration,
    /// A stop string appeared.
    StopString,
    /// As many tokens as asked for were generated.
    Length,
    /// The context is full.
    ContextFull,
    /// [`Session::cancel`] was called.
    Cancelled,
}

/// What a call of [`Session::step`] achieved.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A batch of waiting tokens has been computed and more wait.
    Prefill {
        /// Tokens in the cache.
        done: usize,
        /// Tokens that will be, before the next token is sampled.
        total: usize,
    },
    /// A token was generated. [`Session::finish_reason`] says whether it was the last.
    Token {
        /// The token.
        id: TokenId,
        /// The text that became certain by it: often a word, nothing while a character or stop string is incomplete.
        /// All pieces joined are [`Session::text`].
        piece: String,
        /// Natural logarithm of its probability under the model's own logits, with the option `logprobs`.
        logprob: Option<f32>,
    },
    /// The session is over.
    Finished(FinishReason),
    /// The budget ended; the next call goes on from the same layer.
    Suspended,
}

impl Session {
    /// Works until there is something to tell or the budget ends. A unit of work is one layer of one batch, or the output
    /// head with sampling. The budget is asked after each unit that yields nothing to tell; after any other the caller
    /// asks, before it calls again.
    ///
    /// Any sequence of budgets, batch widths, kernels and threads gives the same tokens from the same bits.
    ///
    /// # Errors
    /// The model is not the session's or is damaged, or memory for the cache is lacking. The step can be tried again.
    pub fn step(&mut self, model: &Model, budget: &mut dyn Budget) -> Result<Step, Error> {
        self.check_model(model)?;
        loop {
            if let Some(reason) = self.finish {
                return Ok(Step::Finished(reason));
            }
            if let Some(step) = self.unit(model)? {
                return Ok(step);
            }
            if budget.exhausted() {
                return Ok(Step::Suspended);
            }
        }
    }

    fn unit(&mut self, model: &Model) -> Result<Option<Step>, Error> {
        self.profile().mark(Stage::Cursor);
        match self.work.phase {
            Phase::Batch => {
                self.begin_batch(model)?;
                self.layer(model)
            }
            Phase::Layers => self.layer(model),
            Phase::Head => self.head(model),
        }
    }

    fn begin_batch(&mut self, model: &Model) -> Result<(), Error> {
        let work = &mut self.work;
        let start = work.cache.len();
        let waiting = self.tokens.get(start..).unwrap_or_default();
        let batch = &waiting[..waiting.len().min(self.options.prefill_batch)];
        work.forward.begin(model, &mut work.cache, start, batch)?;
        work.phase = Phase::Layers;
        Ok(())
    }

    fn layer(&mut self, model: &Model) -> Result<Option<Step>, Error> {
        let work = &mut self.work;
        // A layer that fails leaves the batch half changed; whoever tries again begins it anew.
        work.phase = Phase::Batch;
        let last = work.forward.layer(model, &mut work.cache)?;
        if !last {
            work.phase = Phase::Layers;
            return Ok(None);
        }
        let done = work.cache.len() + work.forward.tokens();
        work.cache.set_len(done);
        let total = self.tokens.len();
        if done == total {
            work.phase = Phase::Head;
            return Ok(None);
        }
        Ok(Some(Step::Prefill { done, total }))
    }

    /// Samples the next token from the last position of the batch.
    fn head(&mut self, model: &Model) -> Result<Option<Step>, Error> {
        let work = &mut self.work;
        work.forward.logits_into(model, work.forward.tokens() - 1, 1, &mut work.logits)?;
        if self.limit == 0 {
            // Only the logits were wanted. The head runs again after an append.
            work.phase = Phase::Batch;
            self.finish = Some(FinishReason::Length);
            return Ok(None);
        }
        let id = self.sampler.sample(&mut work.logits, &self.tokens);
        work.forward.profile().mark(Stage::Sampler);
        // An embedding may have more rows than there are tokens; those have no text.
        let bytes = model.tokenizer.token_bytes(id).unwrap_or_default();
        if self.options.audit {
            self.digests.push(digest(&work.logits));
        }
        let logprob = self.options.logprobs.then(|| log_probability(&work.logits, id));
        work.phase = Phase::Batch;
        self.tokens.push(id);
        self.generated += 1;
        let piece = self.accept(model, id, bytes);
        self.profile().mark(Stage::Text);
        Ok(Some(Step::Token { id, piece, logprob }))
    }

    /// Takes a token into the text and decides whether it was the last.
    fn accept(&mut self, model: &Model, id: TokenId, bytes: &[u8]) -> String {
        let ends = !self.options.ignore_eos && model.tokenizer.end_of_generation().contains(&id);
        let (mut piece, stopped) = if ends { Default::default() } else { self.output.push(bytes, &self.options.stop) };
        self.finish = if ends {
            Some(FinishReason::EndOfGeneration)
        } else if stopped {
            Some(FinishReason::StopString)
        } else if self.generated().len() >= self.limit as usize {
            Some(FinishReason::Length)
        } else if self.tokens.len() >= self.config.context_length {
            Some(FinishReason::ContextFull)
        } else {
            None
        };
        if self.finish.is_some() {
            piece.push_str(&self.output.finish());
        }
        piece
    }
}
