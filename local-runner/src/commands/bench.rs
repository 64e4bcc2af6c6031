//! `icllama bench`: speed natively, instructions in the canister.

use std::io::{self, Write};

use anyhow::Result;
use model_core::TokenId;
use model_core::session::SessionOptions;
use serde::Serialize;

use crate::backend::native::NativeBackend;
use crate::backend::{Backend, BackendArgs, BackendKind, Cost, Generation, Input, Phase, UPDATE_LIMIT, cost_table};
use crate::options::ModelArgs;
use crate::output::{Output, byte_size, grouped, short};
use crate::progress::Progress;

/// Measure prompt and generation: tokens per second natively, instructions and cycles in the canister.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens of the prompt.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    prompt_tokens: u32,
    /// Tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..))]
    generate_tokens: u32,
    /// Repetitions of the native measurement (in the canister every run is the same).
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    #[command(flatten)]
    backend: BackendArgs,
}

#[derive(Debug, Serialize)]
struct NativeReport {
    backend: String,
    prompt_tokens: u32,
    generate_tokens: u32,
    repeat: u32,
    load_ms: f64,
    weights_per_token: u64,
    packed_bytes: u64,
    prefill_tokens_per_second: Spread,
    decode_tokens_per_second: Spread,
}

/// Mean and standard deviation of some measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Spread {
    mean: f64,
    deviation: f64,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        self.backend.check(&self.model)?;
        match self.backend.backend {
            BackendKind::Native => self.native(output),
            BackendKind::Shim => anyhow::bail!("the canister cannot be run yet"),
        }
    }

    fn options(&self) -> SessionOptions {
        let mut options =
            SessionOptions { max_tokens: self.generate_tokens, ignore_eos: true, ..SessionOptions::default() };
        options.sampling.temperature = 0.0;
        options
    }

    /// Tokens spread over the vocabulary, the same in every run.
    fn prompt(&self, vocabulary: usize) -> Input {
        let count = vocabulary.max(1) as u64;
        Input::Tokens((0..u64::from(self.prompt_tokens)).map(|i| (i * 7919 % count) as TokenId).collect())
    }

    fn native(&self, output: Output) -> Result<()> {
        let mut backend = NativeBackend::load(&self.model, &self.backend.native)?;
        let prompt = self.prompt(backend.model().tokenizer.vocab_size());
        let progress = Progress::count("measuring", self.repeat.into(), "runs");
        let mut runs = Vec::new();
        for done in 0..self.repeat {
            progress.set(done.into());
            runs.push(measure(&mut backend, &prompt, &self.options())?.timings);
        }
        drop(progress);
        let report = NativeReport {
            backend: backend.describe(),
            prompt_tokens: self.prompt_tokens,
            generate_tokens: self.generate_tokens,
            repeat: self.repeat,
            load_ms: runs.first().map_or(0.0, |run| run.load_ms),
            weights_per_token: backend.model().weights_per_token(),
            packed_bytes: backend.model().packed_bytes(),
            prefill_tokens_per_second: spread(runs.iter().map(|run| run.prefill_rate())),
            decode_tokens_per_second: spread(runs.iter().map(|run| run.decode_rate())),
        };
        output.document(&report, |out| report.write(out))
    }
}

fn measure(backend: &mut dyn Backend, prompt: &Input, options: &SessionOptions) -> Result<Generation> {
    backend.start(prompt, options)?;
    backend.generate(&mut |_| Ok(()))
}

impl NativeReport {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let line = |spread: Spread| format!("{:>8.1} ± {:.1} tok/s", spread.mean, spread.deviation);
        writeln!(out, "{}, loaded in {:.0} ms, {} packed", self.backend, self.load_ms, byte_size(self.packed_bytes))?;
        writeln!(out, "prompt   {:>5} tokens {}", self.prompt_tokens, line(self.prefill_tokens_per_second))?;
        writeln!(out, "generate {:>5} tokens {}", self.generate_tokens, line(self.decode_tokens_per_second))?;
        let products = self.decode_tokens_per_second.mean * self.weights_per_token as f64;
        writeln!(
            out,
            "{} weights multiplied per token: {} per second while generating",
            short(self.weights_per_token.into()),
            short(products as u128)
        )
    }
}

fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let values: Vec<f64> = values.collect();
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    Spread { mean, deviation: variance.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_mean_and_sample_deviation() {
        assert_eq!(spread([3.0].into_iter()), Spread { mean: 3.0, deviation: 0.0 });
        assert_eq!(spread([1.0, 3.0].into_iter()), Spread { mean: 2.0, deviation: 2f64.sqrt() });
    }
}
