//! `icllama perplexity`: how well the model predicts a text, and how far its arithmetic is from plain f32.

use std::io::{self, Write};
use std::time::Instant;

use anyhow::{Result, bail};
use model_core::TokenId;
use model_core::reference::Reference;
use model_core::tokenizer::{EncodeOptions, Tokenizer};
use serde::Serialize;

use crate::backend::millis;
use crate::backend::native::NativeBackend;
use crate::options::{CacheArgs, ModelArgs, NativeArgs, TextArgs};
use crate::output::{Output, grouped};
use crate::progress::Progress;

/// Measure how well the model predicts a text.
///
/// The text is cut into windows, and within each window every token but the first is predicted from all before it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Tokens per window.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..))]
    ctx: u32,
    /// Use the first N tokens of the text only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    tokens: Option<u32>,
    /// Evaluate the same weights in plain f32 (slow) instead of with the kernels.
    #[arg(long, conflicts_with_all = ["compare", "kv_cache"])]
    reference: bool,
    /// Evaluate both ways and print the relative difference.
    #[arg(long)]
    compare: bool,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    native: NativeArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    tokens: usize,
    context: usize,
    windows: usize,
    scored: usize,
    evaluations: Vec<Evaluation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relative_difference: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
struct Evaluation {
    arithmetic: String,
    perplexity: f64,
    mean_negative_log_likelihood: f64,
    standard_error: f64,
    wall_ms: f64,
}

/// The windows of a text.
struct Windows {
    /// Each begins with the token that is not scored.
    windows: Vec<Vec<TokenId>>,
    tokens: usize,
}

/// Sums over the scored tokens.
#[derive(Debug, Default)]
struct Score {
    count: usize,
    sum: f64,
    squares: f64,
}

/// Gives the logits of every position of a window to a callback.
type Evaluate<'a> = &'a mut dyn FnMut(&[TokenId], &mut (dyn FnMut(usize, &[f32]) + Send)) -> Result<()>;

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let text = self.text.required()?;
        let backend = NativeBackend::load(&self.model, &self.native)?;
        let windows = self.windows(&backend.model().tokenizer, &text)?;
        let context_length = backend.model().config.context_length;
        if windows.windows.iter().any(|window| window.len() > context_length) {
            bail!("--ctx {} is more than the model's context of {context_length} tokens", self.ctx);
        }
        let mut evaluations = Vec::new();
        if !self.reference {
            let kv_cache = self.cache.kv_cache;
            let arithmetic = format!("{}, {}-bit keys and values", backend.describe(), kv_cache.bits());
            evaluations.push(evaluate(arithmetic, &windows, &mut |tokens, each| {
                Ok(backend.install(|model| model.logits_with(kv_cache, tokens, each))?)
            })?);
        }
        if self.reference || self.compare {
            evaluations.push(self.plain(&backend, &windows)?);
        }
        let relative_difference = match evaluations.as_slice() {
            [kernels, plain] => Some(kernels.perplexity / plain.perplexity - 1.0),
            _ => None,
        };
        let report = Report {
            tokens: windows.tokens,
            context: self.ctx as usize,
            windows: windows.windows.len(),
            scored: windows.windows.iter().map(|window| window.len() - 1).sum(),
            evaluations,
            relative_difference,
        };
        output.document(&report, |out| report.write(out))
    }

    fn plain(&self, backend: &NativeBackend, windows: &Windows) -> Result<Evaluation> {
        if self.model.is_overridden() {
            bail!(
                "the plain f32 evaluation takes everything from the model file; leave --override-kv and --tokenizer out"
            );
        }
        let source = self.model.open()?;
        let reference = Reference::load(&source)?;
        evaluate("plain f32".to_owned(), windows, &mut |tokens, each| {
            Ok(backend.install(|_| reference.logits_of(tokens, each))?)
        })
    }

    fn windows(&self, tokenizer: &Tokenizer, text: &str) -> Result<Windows> {
        let mut tokens = tokenizer.encode(text, EncodeOptions { add_bos: false, parse_special: false })?;
        tokens.truncate(self.tokens.map_or(usize::MAX, |limit| limit as usize));
        let bos = if tokenizer.adds_bos() { tokenizer.bos() } else { None };
        let body = (self.ctx as usize - usize::from(bos.is_some())).max(1);
        let window = |part: &[TokenId]| bos.into_iter().chain(part.iter().copied()).collect::<Vec<_>>();
        let windows: Vec<_> = tokens.chunks(body).map(window).filter(|window| window.len() > 1).collect();
        if windows.is_empty() {
            bail!("the text has {} tokens, which leaves nothing to predict; give a longer one", tokens.len());
        }
        Ok(Windows { windows, tokens: tokens.len() })
    }
}

fn evaluate(arithmetic: String, windows: &Windows, logits_of: Evaluate<'_>) -> Result<Evaluation> {
    let progress = Progress::count(&arithmetic, windows.tokens as u64, "tokens");
    let start = Instant::now();
    let mut score = Score::default();
    for window in &windows.windows {
        logits_of(window, &mut |position, logits| {
            if let Some(next) = window.get(position + 1) {
                score.add(negative_log_likelihood(logits, *next));
                progress.set(score.count as u64);
            }
        })?;
    }
    let mean = score.sum / score.count.max(1) as f64;
    let variance = (score.squares / score.count.max(1) as f64 - mean * mean).max(0.0);
    let perplexity = mean.exp();
    Ok(Evaluation {
        arithmetic,
        perplexity,
        mean_negative_log_likelihood: mean,
        standard_error: perplexity * (variance / score.count.max(1) as f64).sqrt(),
        wall_ms: millis(start.elapsed()),
    })
}

impl Score {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }
}

/// `-ln softmax(logits)[token]`, in double precision.
fn negative_log_likelihood(logits: &[f32], token: TokenId) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - f64::from(most)).exp()).sum();
    let of_token = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    sum.ln() + f64::from(most) - f64::from(of_token)
}

impl Report {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} tokens in {} windows of {}, {} scored",
            grouped(self.tokens as u128),
            self.windows,
            self.context,
            grouped(self.scored as u128)
        )?;
        for evaluation in &self.evaluations {
            writeln!(
                out,
                "{:<20} perplexity {:.4} ± {:.4} ({:.1} s)",
                evaluation.arithmetic,
                evaluation.perplexity,
                evaluation.standard_error,
                evaluation.wall_ms / 1e3
            )?;
        }
        match self.relative_difference {
            Some(difference) => writeln!(out, "relative difference {:+.4} %", difference * 100.0),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihood_of_a_known_distribution() {
        let logits = [0.0, 3f32.ln(), 0.0];
        assert!((negative_log_likelihood(&logits, 1) - (5.0f64 / 3.0).ln()).abs() < 1e-6);
        assert!((negative_log_likelihood(&logits, 0) - 5.0f64.ln()).abs() < 1e-6);
        assert!((negative_log_likelihood(&[1e30, 0.0], 0)).abs() < 1e-9);
        assert_eq!(negative_log_likelihood(&logits, 3), f64::INFINITY);
    }

    #[test]
    fn a_uniform_model_has_the_perplexity_of_its_vocabulary() {
        let windows = Windows { windows: vec![vec![0, 1, 2], vec![1, 2]], tokens: 5 };
        let uniform = evaluate("test".to_owned(), &windows, &mut |tokens, each| {
            (0..tokens.len()).for_each(|position| each(position, &[0.5; 7]));
            Ok(())
        });
        let uniform = uniform.unwrap();
        assert!((uniform.perplexity - 7.0).abs() < 1e-9 && uniform.standard_error < 1e-6);
    }
}
