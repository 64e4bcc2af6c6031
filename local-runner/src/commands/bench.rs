//! `icllama bench`: speed natively, instructions in the canister.

use std::io::{self, Write};

use anyhow::Result;
use model_core::TokenId;
use model_core::session::SessionOptions;
use serde::Serialize;

use crate::backend::native::NativeBackend;
use crate::backend::shim::ShimBackend;
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

#[derive(Debug, Serialize)]
struct ShimReport<'a> {
    backend: &'static str,
    prompt_tokens: usize,
    generate_tokens: usize,
    weights_per_token: u64,
    packed_bytes: u64,
    instructions_per_prompt_token: u64,
    instructions_per_generated_token: u64,
    instructions_per_weight: f64,
    page_instructions_per_call: u64,
    tokens_per_full_call: u64,
    full_call_instructions: u64,
    cycles_per_generated_token: u128,
    phases: &'a [Phase],
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        self.backend.check(&self.model)?;
        match self.backend.backend {
            BackendKind::Native => self.native(output),
            BackendKind::Shim => self.shim(output),
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

    fn shim(&self, output: Output) -> Result<()> {
        let mut backend = ShimBackend::install(&self.model, &self.backend.shim, output)?;
        let model = backend.model_info()?;
        let generation = measure(&mut backend, &self.prompt(model.vocab_size as usize), &self.options())?;
        let phase = |name| backend.phases().iter().find(|phase| phase.name == name).map_or(Cost::default(), |p| p.cost);
        let (prompt, generate) = (phase("prompt"), phase("generate"));
        let tokens = generate.generated_tokens.max(1) as u64;
        let per_token = generate.instructions / tokens;
        let page_instructions_per_call = generate.page_instructions / generate.calls.max(1);
        let computing = (generate.instructions - generate.page_instructions) / tokens;
        let report = ShimReport {
            backend: "shim",
            prompt_tokens: prompt.prompt_tokens,
            generate_tokens: generation.tokens.len(),
            weights_per_token: model.weights_per_token,
            packed_bytes: model.packed_bytes,
            instructions_per_prompt_token: prompt.instructions / prompt.prompt_tokens.max(1) as u64,
            instructions_per_generated_token: per_token,
            instructions_per_weight: per_token as f64 / model.weights_per_token.max(1) as f64,
            page_instructions_per_call,
            tokens_per_full_call: UPDATE_LIMIT.saturating_sub(page_instructions_per_call) / computing.max(1),
            full_call_instructions: UPDATE_LIMIT,
            cycles_per_generated_token: generate.cycles / u128::from(tokens),
            phases: backend.phases(),
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

impl ShimReport<'_> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}\n", cost_table(self.phases))?;
        writeln!(
            out,
            "{} weights multiplied per token: {:.3} instructions per weight and generated token, pages included",
            grouped(self.weights_per_token.into()),
            self.instructions_per_weight
        )?;
        writeln!(
            out,
            "{} tokens fit a call of {} instructions, of which {} are charged for pages",
            self.tokens_per_full_call,
            short(self.full_call_instructions.into()),
            short(self.page_instructions_per_call.into())
        )?;
        writeln!(out, "{} cycles per generated token", grouped(self.cycles_per_generated_token))
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
