//! What a session may be told.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::model::CachePrecision;
use crate::prompt::InputOptions;
use crate::sample::Sampling;

/// Widest batch; wider ones gain nothing and take memory.
pub const MAX_PREFILL_BATCH: usize = 1024;
/// Most stop strings.
pub const MAX_STOP_STRINGS: usize = 64;
/// Most alternatives whose log probabilities are kept for a token.
pub const MAX_LOGPROBS: u32 = 20;
/// Longest stop string in bytes.
pub const MAX_STOP_STRING_BYTES: usize = 1024;

/// How to generate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionOptions {
    /// Tokens to generate at most; with 0 the prompt is computed and nothing sampled. Default 128.
    pub max_tokens: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The answer ends before the first of these strings. Default none.
    pub stop: Vec<String>,
    /// Go on after an end-of-generation token. Default false.
    pub ignore_eos: bool,
    /// Every answer follows this grammar ([`Grammar`](crate::grammar::Grammar)) from its first token on. Where the grammar
    /// may end, so may the answer; where nothing can follow, it ends. Default none.
    pub grammar: Option<String>,
    /// Keep a digest of all logits behind every generated token. Default false.
    pub audit: bool,
    /// Keep the log probability of every generated token, and of so many tokens that were likeliest in its place. Costs
    /// two passes over the vocabulary per token. Default none.
    pub logprobs: Option<u32>,
    /// Precision of keys and values: decides memory and bits. Default 16 bits.
    pub kv_cache: CachePrecision,
    /// How text and messages become the tokens that the session is given. Changes nothing about the tokens it has.
    pub input: InputOptions,
    /// Tokens per batch of the prompt. Changes cost and memory, never results. Default 32.
    pub prefill_batch: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            max_tokens: 128,
            sampling: Sampling::default(),
            stop: Vec::new(),
            ignore_eos: false,
            grammar: None,
            audit: false,
            logprobs: None,
            kv_cache: CachePrecision::default(),
            input: InputOptions::default(),
            prefill_batch: 32,
        }
    }
}

impl SessionOptions {
    /// The token's own log probability, and those of its alternatives.
    pub(super) fn logprobs_per_token(&self) -> usize {
        1 + self.logprobs.unwrap_or_default() as usize
    }

    /// Checks every option but the grammar, which is checked when it is read.
    ///
    /// # Errors
    /// Names the first that has no meaning.
    pub fn validate(&self) -> Result<(), Error> {
        self.sampling.validate()?;
        let (found, max) = (self.prefill_batch, MAX_PREFILL_BATCH);
        if !(1..=max).contains(&found) {
            return Err(Error::PrefillBatch { found, max });
        }
        if let Some(found) = self.logprobs.filter(|&found| found > MAX_LOGPROBS) {
            return Err(Error::TooManyLogprobs { found, max: MAX_LOGPROBS });
        }
        let (found, max) = (self.stop.len(), MAX_STOP_STRINGS);
        if found > max {
            return Err(Error::TooManyStopStrings { found, max });
        }
        let max = MAX_STOP_STRING_BYTES;
        match self.stop.iter().position(|stop| !(1..=max).contains(&stop.len())) {
            Some(index) => Err(Error::StopStringLength { index, bytes: self.stop[index].len(), max }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_options_without_meaning() {
        let good = SessionOptions::default();
        assert_eq!(good.validate(), Ok(()));
        let stop = |strings: &[&str]| SessionOptions {
            stop: strings.iter().map(|&string| string.to_owned()).collect(),
            ..SessionOptions::default()
        };
        assert!(matches!(stop(&["a", ""]).validate(), Err(Error::StopStringLength { index: 1, bytes: 0, .. })));
        assert!(matches!(stop(&["x".repeat(1025).as_str()]).validate(), Err(Error::StopStringLength { index: 0, .. })));
        assert!(matches!(stop(&["x"; 65]).validate(), Err(Error::TooManyStopStrings { found: 65, .. })));
        for prefill_batch in [0, 1025] {
            let bad = SessionOptions { prefill_batch, ..SessionOptions::default() };
            assert!(matches!(bad.validate(), Err(Error::PrefillBatch { found, .. }) if found == prefill_batch));
        }
        let bad = SessionOptions { logprobs: Some(21), ..SessionOptions::default() };
        assert_eq!(bad.validate(), Err(Error::TooManyLogprobs { found: 21, max: 20 }));
        let bad = SessionOptions { sampling: Sampling { top_p: 2.0, ..Sampling::default() }, ..good };
        assert!(matches!(bad.validate(), Err(Error::Sampling(_))));
    }
}
