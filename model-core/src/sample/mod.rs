//! From logits to a token. The samplers run in the order of llama.cpp: penalties, top-k, top-p, min-p, temperature.
//! Knows nothing of models and text.

mod chain;
mod order;
mod penalties;
mod rng;

pub use chain::{Sampler, TokenLogprob, log_probabilities, log_probability};
pub use rng::Pcg32;

use serde::{Deserialize, Serialize};

/// How the next token is chosen. The defaults are those of llama.cpp, with a fixed seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Divides the logits before chance decides; 0 takes the likeliest token. Default 0.8.
    pub temperature: f32,
    /// Only the k likeliest tokens; 0 keeps all, which costs a sort of the vocabulary. Default 40.
    pub top_k: u32,
    /// Only the likeliest tokens whose probabilities together reach this; 1 keeps all. Default 0.95.
    pub top_p: f32,
    /// Only tokens at least this likely relative to the likeliest; 0 keeps all. Default 0.05.
    pub min_p: f32,
    /// Divides positive and multiplies other logits of recent tokens; 1 changes nothing. Default 1.
    pub repeat_penalty: f32,
    /// How many of the last tokens, prompt included, count as recent; 0 none. Default 64.
    pub repeat_last_n: u32,
    /// Subtracted from a token's logit for each recent occurrence. Default 0.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of a recent token. Default 0.
    pub presence_penalty: f32,
    /// Seed of the random numbers; the same seed gives the same tokens everywhere. Default 0.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

/// A sampling option that has no meaning.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("sampling option {option} is {found}; it must be {expected}")]
pub struct Error {
    /// Name of the option.
    pub option: &'static str,
    /// Its value.
    pub found: f32,
    /// What would do.
    pub expected: &'static str,
}

impl Sampling {
    /// Always the likeliest token, all else as by default.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Error`] names the first option out of range, NaN included.
    pub fn validate(&self) -> Result<(), Error> {
        let checks = [
            ("temperature", self.temperature, (0.0..=f32::MAX).contains(&self.temperature), "finite and at least 0"),
            ("top_p", self.top_p, (0.0..=1.0).contains(&self.top_p), "between 0 and 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "between 0 and 1"),
            (
                "repeat_penalty",
                self.repeat_penalty,
                self.repeat_penalty > 0.0 && self.repeat_penalty.is_finite(),
                "finite and above 0",
            ),
            ("frequency_penalty", self.frequency_penalty, self.frequency_penalty.is_finite(), "finite"),
            ("presence_penalty", self.presence_penalty, self.presence_penalty.is_finite(), "finite"),
        ];
        match checks.into_iter().find(|&(.., valid, _)| !valid) {
            Some((option, found, _, expected)) => Err(Error { option, found, expected }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_options_without_meaning_by_name() {
        let good = Sampling::default();
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(Sampling::greedy().validate(), Ok(()));
        let bad = [
            (Sampling { temperature: f32::NAN, ..good }, "temperature"),
            (Sampling { temperature: -0.1, ..good }, "temperature"),
            (Sampling { temperature: f32::INFINITY, ..good }, "temperature"),
            (Sampling { top_p: 1.01, ..good }, "top_p"),
            (Sampling { top_p: f32::NAN, ..good }, "top_p"),
            (Sampling { min_p: -0.01, ..good }, "min_p"),
            (Sampling { repeat_penalty: 0.0, ..good }, "repeat_penalty"),
            (Sampling { repeat_penalty: f32::INFINITY, ..good }, "repeat_penalty"),
            (Sampling { frequency_penalty: f32::NAN, ..good }, "frequency_penalty"),
            (Sampling { presence_penalty: f32::NEG_INFINITY, ..good }, "presence_penalty"),
        ];
        for (options, name) in bad {
            assert_eq!(options.validate().unwrap_err().option, name);
        }
    }
}
