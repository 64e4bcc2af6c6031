//! The cursor: what the next unit of work is, and what comes of it.

use serde::{Deserialize, Serialize};

use super::{Constraint, Phase, Session, SessionOptions, Vocabulary, digest};
use crate::budget::Budget;
use crate::grammar;
use crate::model::Model;
use crate::profile::Stage;
use crate::sample::log_probabilities;
use crate::{Error, TokenId};

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// The model sampled an end-of-generation token, or reached the end of the session's grammar.
    EndOfGeneration,
    /// A stop string appeared.
    StopString,
    /// As many tokens as asked for were generated.
    Length,
    /// The context is full.
    ContextFull,
    /// [`Session::cancel`] was called.
    Cancelled,
    /// The session's grammar cannot be followed further. The step that found so has failed with the reason.
    GrammarFailed,
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
        /// [`Session::logprobs`] has its alternatives too.
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
    /// The model is not the session's or is damaged, or memory for the cache is lacking. The step can be tried again. Or
    /// no token follows the session's grammar, or finding one takes too much; then the session is over.
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
        if self.catch_up(model)? {
            return Ok(None);
        }
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
        let id = self.choose(model).map_err(|error| self.give_up(error))?;
        let work = &mut self.work;
        work.forward.profile().mark(Stage::Sampler);
        // An embedding may have more rows than there are tokens; those have no text.
        let bytes = model.tokenizer.token_bytes(id).unwrap_or_default();
        if self.options.audit {
            self.digests.push(digest(&work.logits));
        }
        let logprob = self.options.logprobs.and_then(|alternatives| {
            let start = self.logprobs.len();
            log_probabilities(&work.logits, id, alternatives as usize, &mut self.logprobs);
            self.logprobs.get(start).map(|own| own.logprob)
        });
        work.phase = Phase::Batch;
        self.tokens.push(id);
        self.generated += 1;
        let piece = self.accept(model, id, bytes);
        self.profile().mark(Stage::Text);
        Ok(Some(Step::Token { id, piece, logprob }))
    }

    /// Takes a part of the answer that the grammar has not seen, as after a restore. Returns whether there was one.
    fn catch_up(&mut self, model: &Model) -> Result<bool, super::Error> {
        let Some(constraint) = &mut self.constraint else { return Ok(false) };
        let answer = self.tokens.get(self.answer_start..).unwrap_or_default();
        let caught_up = constraint.catch_up(vocabulary(model, &self.options), answer);
        caught_up.map_err(|error| self.give_up(error))
    }

    /// Ends the session because of its grammar: another try would end the same way.
    fn give_up(&mut self, error: grammar::Error) -> super::Error {
        self.work.phase = Phase::Batch;
        self.finish = Some(FinishReason::GrammarFailed);
        self.output.finish();
        error.into()
    }

    /// A token by the sampler. Only if the grammar refuses it all others are looked through, since most choices fit.
    fn choose(&mut self, model: &Model) -> Result<TokenId, grammar::Error> {
        let logits = &mut self.work.logits;
        let id = self.sampler.sample(logits, &self.tokens);
        let Some(constraint) = &mut self.constraint else { return Ok(id) };
        let vocabulary = vocabulary(model, &self.options);
        if constraint.accept(vocabulary, id)? {
            return Ok(id);
        }
        let allowed = constraint.allowed(vocabulary, model.token_order())?;
        let id = self.sampler.sample_among(logits, &self.tokens, &allowed);
        constraint.accept(vocabulary, id)?;
        Ok(id)
    }

    /// Takes a token into the text and decides whether it was the last.
    fn accept(&mut self, model: &Model, id: TokenId, bytes: &[u8]) -> String {
        let ends = ends(model, &self.options).contains(&id);
        let (mut piece, stopped) = if ends { Default::default() } else { self.output.push(bytes, &self.options.stop) };
        self.finish = if ends {
            Some(FinishReason::EndOfGeneration)
        } else if stopped {
            Some(FinishReason::StopString)
        } else if self.constraint.as_ref().is_some_and(Constraint::must_end) {
            Some(FinishReason::EndOfGeneration)
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

/// Tokens that end an answer.
fn ends<'m>(model: &'m Model, options: &SessionOptions) -> &'m [TokenId] {
    if options.ignore_eos { &[] } else { model.tokenizer.end_of_generation() }
}

fn vocabulary<'m>(model: &'m Model, options: &SessionOptions) -> Vocabulary<'m> {
    Vocabulary { tokenizer: &model.tokenizer, ends: ends(model, options) }
}
