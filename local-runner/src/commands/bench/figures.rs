//! The figures of a record: what the canister costs with one model, as counts that every run repeats exactly.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use canister::api::SessionState;
use local_runner::shim::costs::PageCharges;
use model_core::config::Config;
use model_core::profile::Stage;

use super::profile::{Measured, Work};
use super::record::Figure;
use super::shim::instructions;
use super::{options, prompt};
use crate::backend::shim::ShimBackend;
use crate::backend::{Backend, Cost, UPDATE_LIMIT};

/// Tokens of the short prompt: one batch. The tokens after it stand at up to 64 positions.
const SHORT: u32 = 32;
/// Tokens generated in one call after the short prompt.
const SHORT_TOKENS: u32 = 32;
/// Tokens of the longer prompts.
const LONGER: [u32; 2] = [128, 512];
/// Tokens generated in one call after them.
const LONGER_TOKENS: u32 = 4;
/// Tokens of the prompt before the full call.
const FULL_CALL_PROMPT: u32 = 8;
/// Most tokens that a session may have by the canister's default.
const MAX_SESSION_TOKENS: usize = 32_768;
/// Part of the whole by which a part may change unnoticed.
const PART_SLACK: f64 = 0.001;
/// A few of the units in which the platform charges for pages, read and written.
const PAGE_SLACK: f64 = 4.0 * 16.0 * 10_000.0;

/// A session's first calls.
struct Course {
    /// Up to the first token.
    prompt: Cost,
    /// The tokens after it, in one call.
    tokens: Cost,
}

struct Measurement<'a> {
    backend: &'a mut ShimBackend,
    config: &'a Config,
    work: Work,
    figures: Vec<Figure>,
}

/// Measures everything. `wasm` is the module's file.
///
/// # Errors
/// If a call fails.
pub(super) fn figures(backend: &mut ShimBackend, config: &Config, wasm: &Path) -> Result<Vec<Figure>> {
    let module_bytes = fs::metadata(wasm).with_context(|| format!("cannot read {}", wasm.display()))?.len();
    let mut all = Measurement { backend, config, work: Work::new(config), figures: Vec::new() };
    all.add("module: bytes of the file", module_bytes as f64);
    all.installation()?;
    all.generation()?;
    all.full_call()?;
    all.profile()?;
    all.long_session()?;
    Ok(all.figures)
}

impl Measurement<'_> {
    fn add(&mut self, name: impl Into<String>, value: f64) {
        self.figures.push(Figure::new(name, value));
    }

    fn installation(&mut self) -> Result<()> {
        let info = self.backend.model_info()?;
        let (bytes, weights) = (info.file.bytes as f64, info.weights_per_token as f64);
        let phases = self.backend.phases().to_vec();
        let largest =
            phases.iter().filter(|phase| phase.name != "install").map(|phase| phase.cost.max_call_instructions);
        let largest = largest.max().unwrap_or(0) as f64;
        for (name, what, count) in [
            ("install", "instructions", 1.0),
            ("upload", "instructions per byte", bytes),
            ("verify", "instructions per byte", bytes),
            ("load", "instructions per weight", weights),
        ] {
            let phase = phases.iter().find(|phase| phase.name == name);
            let phase = phase.with_context(|| format!("the canister was never charged for {name}"))?;
            self.add(format!("{name}: {what}"), phase.cost.instructions as f64 / count);
        }
        self.add("upload, verify, load: instructions of the largest call", largest);
        Ok(())
    }

    /// Whether the context has room for a prompt and what is generated after it.
    fn fits(&self, tokens: u32) -> bool {
        tokens as usize <= self.config.context_length
    }

    fn course(&mut self, prompt_tokens: u32, tokens: u32) -> Result<Course> {
        self.backend.start(&prompt(prompt_tokens, self.config.vocab), &options(tokens + 1))?;
        let mut first = Cost::default();
        loop {
            let (progress, cost) = self.backend.call(None, Some(1), false)?;
            first.add(&cost);
            if !progress.tokens.is_empty() {
                break;
            }
        }
        let mut more = Cost::default();
        more.add(&self.backend.call(None, Some(tokens), false)?.1);
        Ok(Course { prompt: first, tokens: more })
    }

    fn generation(&mut self) -> Result<()> {
        let weights = self.backend.model_info()?.weights_per_token as f64;
        let short = self.course(SHORT, SHORT_TOKENS)?.tokens;
        let pages = short.page_instructions.unwrap_or_default() as f64;
        let each = computing(&short) / f64::from(SHORT_TOKENS);
        let tokens = ((UPDATE_LIMIT as f64 - pages) / each).floor();
        self.add("token at up to 64 positions: instructions, pages excluded", each);
        self.figures.push(Figure { slack: PAGE_SLACK, ..Figure::new("call: instructions for pages", pages) });
        self.figures.push(Figure {
            more_is_better: true,
            ..Figure::new("call of 40 B at up to 64 positions: tokens, computed", tokens)
        });
        self.add(
            "call of 40 B at up to 64 positions: instructions per weight and token",
            UPDATE_LIMIT as f64 / tokens / weights,
        );
        let mut before: Option<(u32, f64)> = None;
        for position in
            LONGER.into_iter().filter(|position| self.fits(position + LONGER_TOKENS + 1)).collect::<Vec<_>>()
        {
            let Course { prompt, tokens } = self.course(position, LONGER_TOKENS)?;
            let each = computing(&tokens) / f64::from(LONGER_TOKENS);
            self.add(format!("token at {position} positions: instructions, pages excluded"), each);
            let per_prompt_token = prompt.instructions as f64 / f64::from(position);
            self.add(format!("prompt of {position}: instructions per token, pages included"), per_prompt_token);
            if let Some((other, less)) = before.replace((position, each)) {
                let more = self.work.attention(position.into(), 1) - self.work.attention(other.into(), 1);
                self.add(
                    format!("attention from {other} to {position} positions: instructions per multiplication"),
                    (each - less) / (2 * more) as f64,
                );
            }
        }
        Ok(())
    }

    /// One call that is left to run into the canister's own ceiling, if the context lets it.
    fn full_call(&mut self) -> Result<()> {
        let room = self.config.context_length.min(MAX_SESSION_TOKENS).saturating_sub(FULL_CALL_PROMPT as usize);
        let enough = UPDATE_LIMIT / (self.work.layer_weights() + self.work.head_weights()).max(1) * 4;
        let Some(tokens) = u32::try_from(enough).ok().filter(|&tokens| tokens as usize <= room) else { return Ok(()) };
        self.backend.start(&prompt(FULL_CALL_PROMPT, self.config.vocab), &options(tokens))?;
        self.backend.call(None, Some(1), false)?;
        let (progress, cost) = self.backend.call(None, None, false)?;
        if progress.status.state == SessionState::Generating {
            let tokens = progress.tokens.len() as f64;
            self.figures.push(Figure { more_is_better: true, ..Figure::new("full call: tokens, generated", tokens) });
            self.add("full call: instructions", cost.instructions as f64);
            self.add("full call: instructions per token", cost.instructions as f64 / tokens);
        }
        Ok(())
    }

    fn profile(&mut self) -> Result<()> {
        let measured = instructions(self.backend, &prompt(SHORT, self.config.vocab), &options(2))?;
        let [of_prompt, of_token] = &measured;
        let weights = u64::from(SHORT) * self.work.layer_weights() + self.work.head_weights();
        let without_pages = (of_prompt.whole - of_prompt.count(&["pages"])) as f64;
        self.add(
            format!("prompt of {SHORT}: instructions per weight multiplied, pages excluded"),
            without_pages / weights as f64,
        );
        let attention = [Stage::Store, Stage::Scores, Stage::Softmax, Stage::Mix, Stage::Attention].map(Stage::name);
        let multiplications = 2 * self.work.attention(SHORT.into(), 1);
        self.add(
            format!("attention at {SHORT} positions: instructions per multiplication, all of it"),
            of_token.count(&attention) as f64 / multiplications as f64,
        );
        let around = ["admission", "argument", "session load", "session store", "answer"];
        self.add("call: instructions besides computing and pages", of_token.count(&around) as f64);
        self.parts(&format!("prompt of {SHORT}"), of_prompt);
        self.parts(&format!("token at {SHORT}"), of_token);
        Ok(())
    }

    fn parts(&mut self, what: &str, measured: &Measured) {
        let slack = PART_SLACK * measured.whole as f64;
        for part in &measured.parts {
            let figure = Figure::new(format!("{what}: {}", part.part), part.count as f64);
            let slack = if part.part == "pages" { slack.max(PAGE_SLACK) } else { slack };
            self.figures.push(Figure { slack, ..figure });
        }
    }

    /// What a call costs besides computing when the session is as long as it can be: a call that computes one layer of
    /// one batch and yields no token.
    fn long_session(&mut self) -> Result<()> {
        let tokens = self.config.context_length.min(MAX_SESSION_TOKENS).saturating_sub(2).max(1) as u32;
        self.backend.start(&prompt(tokens, self.config.vocab), &options(1))?;
        self.backend.change_page_charges(PageCharges::NONE);
        let (progress, cost) = self.backend.call(Some(1), None, true)?;
        self.backend.change_page_charges(PageCharges::default());
        let is_stage = |name: &str| Stage::ALL.iter().any(|stage| stage.name() == name);
        let parts = progress.profile.unwrap_or_default();
        let computed: u64 = parts.iter().filter(|part| is_stage(&part.part)).map(|part| part.instructions).sum();
        let around = cost.instructions.saturating_sub(computed);
        self.add(
            format!("call in a session of {tokens} tokens: instructions besides computing and pages"),
            around as f64,
        );
        Ok(())
    }
}

/// Instructions besides those for pages.
fn computing(cost: &Cost) -> f64 {
    (cost.instructions - cost.page_instructions.unwrap_or_default()) as f64
}
