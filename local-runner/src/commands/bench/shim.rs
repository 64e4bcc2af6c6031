//! Instructions and cycles in the canister, and instructions per part.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use canister::api::{self, SessionState};
use local_runner::shim::costs::PageCharges;
use model_core::session::SessionOptions;
use serde::Serialize;

use super::figures::figures;
use super::profile::{Measured, Part, Profile, Work};
use super::record::Record;
use super::{Args, measure};
use crate::backend::shim::ShimBackend;
use crate::backend::{Backend, CallCost, Cost, Input, Phase, UPDATE_LIMIT, cost_table};
use crate::clock::today;
use crate::output::{Output, grouped, note, short};

#[derive(Debug, Serialize)]
struct Report<'a> {
    backend: &'static str,
    prompt_tokens: usize,
    generate_tokens: usize,
    weights_per_token: u64,
    residency: String,
    packed_bytes: u64,
    kv_cache_bits: u8,
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
    pub(super) fn shim(&self, output: Output) -> Result<()> {
        let mut backend = ShimBackend::install(&self.model, &self.backend.shim, output)?;
        let model = backend.model_info()?;
        let generation = measure(&mut backend, &self.prompt(model.vocab_size as usize), &self.options())?;
        let phase = |name| backend.phases().iter().find(|phase| phase.name == name).map_or(Cost::default(), |p| p.cost);
        let (prompt, generate) = (phase("prompt"), phase("generate"));
        let tokens = generate.generated_tokens.max(1) as u64;
        let per_token = generate.instructions / tokens;
        let pages = generate.page_instructions.unwrap_or_default();
        let page_instructions_per_call = pages / generate.calls.max(1);
        let computing = (generate.instructions - pages) / tokens;
        let report = Report {
            backend: "shim",
            prompt_tokens: prompt.prompt_tokens,
            generate_tokens: generation.tokens.len(),
            weights_per_token: model.weights_per_token,
            residency: model.residency,
            packed_bytes: model.packed_bytes,
            kv_cache_bits: self.cache.kv_cache.bits(),
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

    pub(super) fn shim_profile(&self, output: Output) -> Result<()> {
        let config = self.config()?;
        let mut backend = ShimBackend::install(&self.model, &self.backend.shim, output)?;
        let measured = instructions(&mut backend, &self.prompt(config.vocab), &self.options())?;
        let profile = Profile::new("instructions", self.prompt_tokens, Work::new(&config), measured);
        output.document(&profile, |out| profile.write(out))
    }

    /// Measures for the record at `path`, and renews it or compares with it.
    pub(super) fn shim_record(&self, path: &Path, output: Output) -> Result<()> {
        let mut record = Record::read(path)?;
        let config = self.config()?;
        let mut backend = ShimBackend::install(&self.model, &self.backend.shim, output)?;
        let figures = figures(&mut backend, &config, &self.backend.shim.wasm_path()?)?;
        output.document(&figures, |out| {
            figures.iter().try_for_each(|figure| writeln!(out, "{:<88} {:>16}", figure.name, figure.text()))
        })?;
        if self.record.is_some() {
            record.renew(&today(), &figures);
            return record.write(path);
        }
        let findings = record.compare(&figures);
        let model = &self.model.file.model;
        let residency =
            self.model.keeping.residency.residency().map(|residency| format!(" --residency {}", residency.name()));
        let residency = residency.unwrap_or_default();
        let activations = match self.model.keeping.activations.activation_bits() {
            16 => String::new(),
            bits => format!(" --activations {bits}"),
        };
        let renewal =
            format!("icllama bench {model} --backend shim{residency}{activations} --record {}", path.display());
        if !findings.better.is_empty() {
            let lines = findings.better.join("\n  ");
            note(&format!("better than {} knows; please renew it ({renewal}):\n  {lines}", path.display()));
        }
        if !findings.worse.is_empty() {
            let lines = findings.worse.join("\n  ");
            bail!("worse than {}:\n  {lines}\nif this is meant, renew it: {renewal}", path.display());
        }
        Ok(())
    }
}

impl Report<'_> {
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

/// One call: what the canister answered, and what the shim metered.
struct Call {
    progress: api::SessionProgress,
    cost: CallCost,
}

/// The parts of the call that computes `prompt` and of the next one, which computes one token.
///
/// The same two calls are made three times. As they are, for what is metered; without charges for pages, since the
/// canister's counter shows those inside the part that touches a page first; and so with marks, for the parts.
///
/// # Errors
/// If a call fails, or the prompt takes several.
pub(super) fn instructions(
    backend: &mut ShimBackend,
    prompt: &Input,
    options: &SessionOptions,
) -> Result<[Measured; 2]> {
    let metered = two_calls(backend, prompt, options, false)?;
    backend.change_page_charges(PageCharges::NONE);
    let plain = two_calls(backend, prompt, options, false)?;
    let marked = two_calls(backend, prompt, options, true)?;
    backend.change_page_charges(PageCharges::default());
    let [[a, b], [plain_a, plain_b], [marked_a, marked_b]] = [metered, plain, marked];
    Ok([attribute(&a, &plain_a, marked_a)?, attribute(&b, &plain_b, marked_b)?])
}

fn two_calls(backend: &mut ShimBackend, prompt: &Input, options: &SessionOptions, profile: bool) -> Result<[Call; 2]> {
    backend.start(prompt, options)?;
    let mut call = || -> Result<Call> {
        let (progress, cost) = backend.call(None, Some(1), profile)?;
        if progress.tokens.is_empty() && progress.status.state == SessionState::Prefill {
            bail!("the prompt takes more than one call; use fewer --prompt-tokens");
        }
        Ok(Call { progress, cost })
    };
    Ok([call()?, call()?])
}

/// Puts the metered whole together: pages, the parts that the canister told, what came before and after them.
fn attribute(metered: &Call, plain: &Call, marked: Call) -> Result<Measured> {
    let parts = marked.progress.profile.context("the canister answered no profile; build it and this command alike")?;
    let mut parts: Vec<Part> = parts.iter().map(|part| Part::new(&part.part, part.instructions, part.reads)).collect();
    // The first part is that before the method, which `instructions` does not count.
    let marked_instructions: u64 = parts.iter().skip(1).map(|part| part.count).sum();
    let reads: u64 = parts.iter().map(|part| part.reads).sum();
    let overhead = marked_instructions.saturating_sub(plain.progress.instructions);
    let per_reading = overhead / reads.max(1);
    let CallCost { instructions, page_instructions, admission_instructions, .. } = metered.cost;
    let known = page_instructions.zip(admission_instructions);
    let (page_instructions, admission_instructions) = known.context("the call was not metered")?;
    let inside = parts.first().map_or(0, |part| part.count) + plain.progress.instructions;
    parts.insert(0, Part::new("admission", admission_instructions, 0));
    let answer = instructions.checked_sub(page_instructions + admission_instructions + inside);
    parts.push(Part::new("answer", answer.context("the parts of the call are more than its whole")?, 0));
    parts.push(Part::new("pages", page_instructions, 0));
    let mut measured = Measured { whole: instructions, parts, per_reading, reads };
    measured.subtract_marks();
    Ok(measured)
}
