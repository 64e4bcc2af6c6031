//! `icllama run`: continue a prompt, answer a question, or hold a conversation.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use model_core::TokenId;
use model_core::session::{FinishReason, MAX_LOGPROBS, SessionOptions};
use model_core::tokenizer::Tokenizer;
use serde::Serialize;

use super::chat::Chat;
use super::logprobs::{self, Logprobs};
use crate::backend::{self, AnyBackendArgs, Backend, CallCost, Event, Generation, ModeArgs, Phase, Timings};
use crate::chat_options::ChatArgs;
use crate::interrupt::{Interrupted, Interrupts};
use crate::new_file::NewFile;
use crate::options::{CacheArgs, GrammarArgs, OptionalModelArgs, SamplingArgs, TextArgs};
use crate::output::{self, Output};
use crate::trace::Trace;

/// Generate text; without a prompt, on a terminal, chat.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: OptionalModelArgs,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    mode: ModeArgs,
    #[command(flatten)]
    generate: GenerateArgs,
    /// With --json: print a line per event, then the result as the last line.
    #[arg(long, requires = "json")]
    stream: bool,
}

/// What is generated, and by what.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// Generate at most N tokens (per answer).
    #[arg(short, long, value_name = "N", default_value_t = 256)]
    n_predict: u32,
    /// End before this string. Repeatable.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on after an end-of-generation token.
    #[arg(long)]
    ignore_eos: bool,
    /// Show how probable every generated token was, and the N likeliest in its place (0 to 20).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_LOGPROBS)))]
    logprobs: Option<u32>,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    grammar: GrammarArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    backend: AnyBackendArgs,
    /// Write what was computed when, in every layer of every token, for Chrome's trace viewer or Perfetto. Native backend.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// The result, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    backend: &'static str,
    prompt_tokens: usize,
    tokens: &'a [TokenId],
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<Logprobs>>,
    finish_reason: &'static str,
    timings: ReportTimings,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cycles: Option<u128>,
    #[serde(skip_serializing_if = "<[Phase]>::is_empty")]
    phases: &'a [Phase],
}

#[derive(Debug, Serialize)]
struct ReportTimings {
    #[serde(flatten)]
    timings: Timings,
    prefill_tokens_per_second: f64,
    decode_tokens_per_second: f64,
}

#[derive(Debug, Serialize)]
struct CallLine<'a> {
    index: u64,
    #[serde(flatten)]
    cost: &'a CallCost,
    tokens: &'a [TokenId],
    text: &'a str,
}

/// A line of `--json --stream`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Prefill { done: usize, total: usize },
    Token { id: TokenId, text: &'a str },
    Call(CallLine<'a>),
    Result(Report<'a>),
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let prompt = self.text.text()?;
        if prompt.is_none() && output.is_json() {
            bail!("--json needs a prompt; use -p TEXT, -f FILE or pipe it in");
        }
        if prompt.is_none() && self.mode.raw {
            bail!("--raw needs a prompt; use -p TEXT, -f FILE or pipe it in");
        }
        let mut options = self.generate.options()?;
        options.input.parse_special = self.mode.parse_special;
        let naming = self.generate.naming(&self.model)?;
        let mut backend = self.generate.open(&self.model, output)?;
        let done = match prompt {
            Some(text) => self.answer(backend.as_mut(), text, &options, naming.as_ref(), output),
            None => Chat::new(backend.as_mut(), self.mode.system(), options, naming, output)
                .and_then(|mut chat| chat.converse(io::stdin().lock(), true)),
        };
        self.generate.finish(backend.as_mut(), done)
    }

    fn answer(
        &self,
        backend: &mut dyn Backend,
        text: String,
        options: &SessionOptions,
        naming: Option<&Tokenizer>,
        output: Output,
    ) -> Result<()> {
        let input = self.mode.input(&text, &backend.chat_support())?;
        backend.start(&input, options)?;
        let generation = self.generated(backend, output)?;
        let report = report(backend, &generation, naming)?;
        if self.stream {
            return output.json_line(&Line::Result(report));
        }
        output.document(&report, |out| {
            if !is_streaming(backend, output) {
                write!(out, "{}", generation.text)?;
            }
            writeln!(out)
        })?;
        show_logprobs(&report, output);
        summarize(backend, &generation, output);
        Ok(())
    }
}

impl Args {
    /// The answer, shown as it comes. Ctrl-C ends the command at once, unless a session elsewhere has to be given up first.
    fn generated(&self, backend: &mut dyn Backend, output: Output) -> Result<Generation> {
        let (stream, is_streaming) = (self.stream, is_streaming(backend, output));
        if !backend.is_elsewhere() {
            return backend.generate(&mut |event| show(&event, stream, is_streaming, output));
        }
        let interrupts = Interrupts::new().context("cannot watch for Ctrl-C")?;
        let watched = interrupts.watch();
        backend.generate(&mut |event| {
            show(&event, stream, is_streaming, output)?;
            if !watched.is_raised() {
                return Ok(());
            }
            output.line("")?;
            bail!(Interrupted)
        })
    }
}

impl GenerateArgs {
    /// How to generate.
    ///
    /// # Errors
    /// If the grammar or what the chat template is told cannot be read or is wrong.
    pub fn options(&self) -> Result<SessionOptions> {
        Ok(SessionOptions {
            max_tokens: self.n_predict,
            sampling: self.sampling.sampling(),
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            kv_cache: self.cache.kv_cache,
            logprobs: self.logprobs,
            input: self.chat.input()?,
            grammar: self.grammar.grammar()?,
            prefill_batch: self.backend.prefill_batch(),
            ..SessionOptions::default()
        })
    }

    /// What names tokens, if log probabilities are asked for.
    ///
    /// # Errors
    /// If the vocabulary cannot be read.
    pub fn naming(&self, model: &OptionalModelArgs) -> Result<Option<Tokenizer>> {
        let tokenizer = || {
            let model =
                model.given().context("--logprobs needs the model file, too: it has the names of the tokens")?;
            model.file.load_tokenizer()
        };
        self.logprobs.map(|_| tokenizer()).transpose()
    }

    /// Starts the backend with the model.
    ///
    /// # Errors
    /// If the model cannot be loaded, or the options do not go with the backend.
    pub fn open(&self, model: &OptionalModelArgs, output: Output) -> Result<Box<dyn Backend>> {
        if self.trace.is_some() && !self.backend.is_native() {
            bail!("--trace needs --backend native");
        }
        let template = self.chat.template()?;
        let mut backend = self.backend.open(model.given().as_ref(), output)?;
        if let Some(template) = template {
            backend.choose_chat_template(&template)?;
        }
        if self.trace.is_some() {
            backend.record_trace();
        }
        Ok(backend)
    }

    /// Gives up the session, and writes what is to be written after the last answer, if all went well before.
    ///
    /// # Errors
    /// What went wrong before, or that the trace cannot be written.
    pub fn finish(&self, backend: &mut dyn Backend, done: Result<()>) -> Result<()> {
        let closed = backend.close();
        done?;
        closed?;
        match (&self.trace, backend.take_trace()) {
            (Some(path), Some(trace)) => write_trace(path, &trace),
            _ => Ok(()),
        }
    }
}

fn write_trace(path: &Path, trace: &Trace) -> Result<()> {
    let mut text = Vec::new();
    trace.write(&mut text)?;
    let interrupts = Interrupts::new().context("cannot watch for Ctrl-C")?;
    let watched = interrupts.watch();
    NewFile::write_all_of(path, &text)?;
    if watched.is_raised() { bail!(Interrupted) } else { Ok(()) }
}

/// Whether the text is shown as it comes. Where details are asked for of a deployed canister, there is a line per call instead.
pub fn is_streaming(backend: &dyn Backend, output: Output) -> bool {
    backend.is_streaming() && !(backend.is_elsewhere() && output.is_verbose())
}

/// Shows an event while generating: pieces of text as they come, or a line per call.
pub fn show(event: &Event<'_>, stream: bool, is_streaming: bool, output: Output) -> Result<()> {
    if stream {
        return output.json_line(&match event {
            Event::Prefill { done, total } => Line::Prefill { done: *done, total: *total },
            Event::Token { id, text, .. } => Line::Token { id: *id, text },
            Event::Call { index, cost, tokens, text } => Line::Call(CallLine { index: *index, cost, tokens, text }),
        });
    }
    match event {
        Event::Prefill { done, total } => output.log(|| format!("prompt: {done} of {total} tokens")),
        Event::Token { text, .. } => output.piece(text)?,
        Event::Call { text, .. } if is_streaming => output.piece(text)?,
        Event::Call { .. } if output.is_json() && !output.is_verbose() => {}
        Event::Call { index, cost, text, .. } => output::note(&cost.live_line(*index, text)),
    }
    Ok(())
}

/// What is told of a generation in JSON; with log probabilities if there is a tokenizer to name tokens with.
///
/// # Errors
/// If a token has no name.
pub fn report<'a>(
    backend: &'a dyn Backend,
    generation: &'a Generation,
    naming: Option<&Tokenizer>,
) -> Result<Report<'a>> {
    let timings = generation.timings;
    Ok(Report {
        backend: backend.name(),
        prompt_tokens: generation.prompt.len(),
        tokens: &generation.tokens,
        text: &generation.text,
        logprobs: naming.map(|tokenizer| logprobs::named(tokenizer, &generation.logprobs)).transpose()?,
        finish_reason: finish_name(generation.finish_reason),
        timings: ReportTimings {
            prefill_tokens_per_second: timings.prefill_rate(),
            decode_tokens_per_second: timings.decode_rate(),
            timings,
        },
        calls: generation.cost.map(|cost| cost.calls),
        instructions: generation.cost.map(|cost| cost.instructions),
        cycles: generation.cost.map(|cost| cost.cycles),
        phases: backend.phases(),
    })
}

/// Tells a person on stderr how probable the tokens were.
pub fn show_logprobs(report: &Report<'_>, output: Output) {
    let logprobs = report.logprobs.iter().flatten().filter(|_| !output.is_json());
    logprobs.for_each(|token| output::note(&token.line()));
}

/// The name of a finish reason in JSON.
pub fn finish_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::EndOfGeneration => "end_of_generation",
        FinishReason::StopString => "stop_string",
        FinishReason::Length => "length",
        FinishReason::ContextFull => "context_full",
        FinishReason::Cancelled => "cancelled",
        FinishReason::GrammarFailed => "grammar_failed",
    }
}

/// Tells a person on stderr how it went: a table of the canister's calls, or the speed when asked for details.
pub fn summarize(backend: &dyn Backend, generation: &Generation, output: Output) {
    if output.is_json() {
        return;
    }
    match generation.cost {
        Some(_) => output::note(&backend::cost_table(backend.phases())),
        None => output.log(|| {
            let timings = generation.timings;
            format!(
                "{}: loaded in {:.0} ms; prompt {} tokens at {:.1} tok/s; answer {} tokens at {:.1} tok/s; ended by {}",
                backend.name(),
                timings.load_ms,
                timings.prefill_tokens,
                timings.prefill_rate(),
                generation.tokens.len(),
                timings.decode_rate(),
                finish_name(generation.finish_reason),
            )
        }),
    }
}
