//! `icllama bench`: speed natively, instructions in the canister.

mod figures;
mod native;
mod profile;
mod record;
mod shim;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use model_core::TokenId;
use model_core::config::Config;
use model_core::gguf::File;
use model_core::session::SessionOptions;

use crate::backend::{Backend, BackendArgs, BackendKind, Generation, Input};
use crate::options::{CacheArgs, ModelArgs};
use crate::output::Output;

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
    /// Show where it goes instead: every part of the prompt's computation and of the token after it, instructions in the
    /// canister, nanoseconds natively.
    #[arg(long, conflicts_with = "generate_tokens")]
    profile: bool,
    /// Measure what the canister costs with the model in all respects, and write it to a record: a table with a column
    /// for today.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt_tokens", "generate_tokens", "profile", "kv_cache"])]
    record: Option<PathBuf>,
    /// Measure the same and compare it with a record. Fails if a figure is more than 1 % worse than the newest one.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["record", "prompt_tokens", "generate_tokens", "profile", "kv_cache"]
    )]
    check: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        self.backend.check(&self.model)?;
        if let Some(path) = self.record.as_ref().or(self.check.as_ref()) {
            if self.backend.backend == BackendKind::Native {
                bail!("--record and --check need --backend shim: only counts are the same on every machine");
            }
            return self.shim_record(path, output);
        }
        match (self.backend.backend, self.profile) {
            (BackendKind::Native, false) => self.native(output),
            (BackendKind::Native, true) => self.native_profile(output),
            (BackendKind::Shim, false) => self.shim(output),
            (BackendKind::Shim, true) => self.shim_profile(output),
        }
    }

    fn options(&self) -> SessionOptions {
        let (kv_cache, prefill_batch) = (self.cache.kv_cache, self.backend.prefill_batch());
        SessionOptions { kv_cache, prefill_batch, ..options(self.generate_tokens) }
    }

    fn prompt(&self, vocabulary: usize) -> Input {
        prompt(self.prompt_tokens, vocabulary)
    }

    /// The model's shape.
    fn config(&self) -> Result<Config> {
        let path = &self.model.file.model;
        let mut file = File::read(&self.model.open()?).with_context(|| format!("cannot read {path}"))?;
        for (key, value) in &self.model.file.reading.override_kv {
            file.metadata_mut().insert(key, value.clone());
        }
        Config::from_gguf(&file).with_context(|| format!("cannot read {path}"))
    }
}

/// Exactly so many greedy tokens.
fn options(max_tokens: u32) -> SessionOptions {
    let mut options = SessionOptions { max_tokens, ignore_eos: true, ..SessionOptions::default() };
    options.sampling.temperature = 0.0;
    options
}

/// Tokens spread over the vocabulary, the same in every run.
fn prompt(tokens: u32, vocabulary: usize) -> Input {
    let count = vocabulary.max(1) as u64;
    Input::Tokens((0..u64::from(tokens)).map(|i| (i * 7919 % count) as TokenId).collect())
}

fn measure(backend: &mut dyn Backend, prompt: &Input, options: &SessionOptions) -> Result<Generation> {
    backend.start(prompt, options)?;
    backend.generate(&mut |_| Ok(()))
}
