//! `icllama parity`: the same generation on every path, native and in the canister, compared bit by bit.

use std::time::Instant;

use anyhow::{Result, bail};
use model_core::TokenId;
use model_core::kernels::Kernel;
use model_core::model::LoadOptions;
use model_core::pack::Residency;
use model_core::prompt::InputOptions;
use model_core::session::{FinishReason, SessionOptions};
use serde::Serialize;

use super::run::finish_name;
use crate::backend::native::NativeBackend;
use crate::backend::network::NetworkBackend;
use crate::backend::shim::ShimBackend;
use crate::backend::{Backend, Cost, ModeArgs, Plan, ShimArgs, millis};
use crate::chat_options::ChatArgs;
use crate::model_file::ModelFile;
use crate::network::{DeployedArgs, Network};
use crate::options::{CacheArgs, GrammarArgs, ModelArgs, ResidencyChoice, SamplingArgs, TextArgs};
use crate::output::{Output, grouped, short};
use crate::progress::Progress;

/// Instructions per call, in turn, of the run with tiny budgets: each call does at least one unit of work, so
/// generation is suspended at layers everywhere in prompt and answer.
const TINY_BUDGETS: [u64; 6] = [1, 20_000_000, 90_000_000, 3_000_000, 45_000_000, 250_000_000];

/// Prove that native runs and the canister compute the same bits.
///
/// Runs one generation natively (each kernel, one thread and two, weights wide and compact, whole and token-wise prompt)
/// and in the canister (normal budgets, tiny ones, across an upgrade, in the other residency), and compares tokens and the bits of all logits.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Tokens to generate; end-of-generation tokens are passed over.
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    n_predict: u32,
    #[command(flatten)]
    mode: ModeArgs,
    #[command(flatten)]
    chat: ChatArgs,
    /// Run the native paths only.
    #[arg(long)]
    native_only: bool,
    #[command(flatten)]
    grammar: GrammarArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    shim: ShimArgs,
    /// Compare with the model of a deployed canister (--canister) on this network, ic, local or a URL, and not with the shim. It
    /// has to be the same file.
    #[arg(long, value_name = "NETWORK", conflicts_with_all = ["native_only", "wasm"], requires = "canister")]
    deployed: Option<Network>,
    #[command(flatten)]
    canister: DeployedArgs,
}

/// One run, with everything that is compared.
#[derive(Debug)]
struct Run {
    label: String,
    prompt: Vec<TokenId>,
    tokens: Vec<TokenId>,
    text: String,
    digests: Vec<u64>,
    logits: Vec<f32>,
    finish_reason: FinishReason,
    cost: Option<Cost>,
    wall_ms: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    identical: bool,
    prompt_tokens: usize,
    tokens: Vec<TokenId>,
    text: String,
    positions: usize,
    vocabulary: usize,
    runs: Vec<RunReport>,
}

#[derive(Debug, Serialize)]
struct RunReport {
    run: String,
    identical: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<String>,
    tokens: usize,
    finish_reason: &'static str,
    wall_ms: f64,
    #[serde(flatten)]
    cost: Option<Cost>,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let text = self.text.required()?;
        let mut reporter = Reporter { output, reference: None, runs: Vec::new() };
        let deployed = self.deployed.as_ref().map(|network| self.open_deployed(network)).transpose()?;
        self.native_runs(&text, &mut reporter)?;
        match deployed {
            Some(backend) => self.deployed_run(backend, &text, &mut reporter)?,
            None if self.native_only => {}
            None => self.canister_runs(&text, &mut reporter)?,
        }
        reporter.verdict()
    }

    /// The deployed canister, if it computes what the native runs compute.
    fn open_deployed(&self, network: &Network) -> Result<NetworkBackend> {
        let mut backend = NetworkBackend::open(self.canister.connect(network)?, &self.shim)?;
        backend.check_model(&self.model.open()?)?;
        let bits = backend.model_info()?.activation_bits;
        if bits != self.model.keeping.activations.activation_bits() {
            bail!("the canister multiplies with activations of {bits} bits; compare with --activations {bits}");
        }
        Ok(backend)
    }

    fn deployed_run(&self, mut backend: NetworkBackend, text: &str, reporter: &mut Reporter) -> Result<()> {
        let label = self.deployed.as_ref().map_or_else(String::new, |network| format!("canister on {network}"));
        let done = self.one(label, &mut backend, text, &self.options()?, reporter);
        let closed = backend.close();
        done.and(closed)
    }

    fn options(&self) -> Result<SessionOptions> {
        let input = InputOptions { parse_special: self.mode.parse_special, ..self.chat.input()? };
        Ok(SessionOptions {
            input,
            max_tokens: self.n_predict,
            sampling: self.sampling.sampling_or_greedy(),
            ignore_eos: true,
            grammar: self.grammar.grammar()?,
            audit: true,
            kv_cache: self.cache.kv_cache,
            ..SessionOptions::default()
        })
    }

    /// The first run is the reference: scalar code, one thread.
    fn native_runs(&self, text: &str, reporter: &mut Reporter) -> Result<()> {
        let source = self.model.open()?;
        for kernel in Kernel::available() {
            let mut options = self.model.load_options(Some(kernel))?;
            for threads in [1, 2] {
                let backend = self.native(&source, options.clone(), threads, text, reporter)?;
                options.residency = Some(backend.model().residency());
            }
            options.residency = options.residency.map(|residency| match residency {
                Residency::Wide => Residency::Compact,
                Residency::Compact => Residency::Wide,
            });
            self.native(&source, options, 2, text, reporter)?;
        }
        let mut backend = NativeBackend::from_source(&source, self.model.load_options(None)?, 2)?;
        let options = SessionOptions { prefill_batch: 1, ..self.options()? };
        self.one("native, prompt token by token".to_owned(), &mut backend, text, &options, reporter)
    }

    fn native(
        &self,
        source: &ModelFile,
        options: LoadOptions,
        threads: usize,
        text: &str,
        reporter: &mut Reporter,
    ) -> Result<NativeBackend> {
        let mut backend = NativeBackend::from_source(source, options, threads)?;
        let label = format!("native, {}", backend.describe());
        self.one(label, &mut backend, text, &self.options()?, reporter)?;
        Ok(backend)
    }

    fn canister_runs(&self, text: &str, reporter: &mut Reporter) -> Result<()> {
        let mut backend = ShimBackend::install(&self.model, &self.shim, reporter.output)?;
        let normal = backend.plan().clone();
        self.one("canister, normal budgets".to_owned(), &mut backend, text, &self.options()?, reporter)?;
        backend.set_plan(Plan { max_instructions: TINY_BUDGETS.to_vec(), ..normal.clone() });
        self.one("canister, tiny budgets".to_owned(), &mut backend, text, &self.options()?, reporter)?;
        let half = (self.n_predict / 2).max(1);
        backend.set_plan(Plan { tokens_per_call: Some(half), upgrade_at: Some(half as usize), ..normal.clone() });
        self.one("canister, upgraded half-way".to_owned(), &mut backend, text, &self.options()?, reporter)?;
        if backend.upgrades() == 0 {
            bail!("the answer ended before the upgrade could take place; ask for more tokens with another prompt");
        }
        let (choice, label) = match backend.model_info()?.residency.as_str() {
            "wide" => (ResidencyChoice::Compact, "canister, compact"),
            _ => (ResidencyChoice::Wide, "canister, wide"),
        };
        backend.set_residency(choice)?;
        backend.set_plan(normal);
        self.one(label.to_owned(), &mut backend, text, &self.options()?, reporter)
    }

    fn one(
        &self,
        label: String,
        backend: &mut dyn Backend,
        text: &str,
        options: &SessionOptions,
        reporter: &mut Reporter,
    ) -> Result<()> {
        let progress = Progress::count(&label, self.n_predict.into(), "tokens");
        let mut done = 0;
        let start = Instant::now();
        if let Some(template) = self.chat.template()? {
            backend.choose_chat_template(&template)?;
        }
        backend.start(&self.mode.input(text, &backend.chat_support())?, options)?;
        let generation = backend.generate(&mut |event| {
            done += event.generated();
            progress.set(done as u64);
            Ok(())
        })?;
        drop(progress);
        reporter.add(Run {
            label,
            wall_ms: millis(start.elapsed()),
            logits: backend.logits()?,
            prompt: generation.prompt,
            tokens: generation.tokens,
            text: generation.text,
            digests: generation.digests,
            finish_reason: generation.finish_reason,
            cost: generation.cost,
        })
    }
}

/// Compares each run with the first and says so.
struct Reporter {
    output: Output,
    reference: Option<Run>,
    runs: Vec<RunReport>,
}

impl Reporter {
    fn add(&mut self, run: Run) -> Result<()> {
        let difference = match &self.reference {
            Some(reference) => difference(reference, &run),
            None if run.digests.len() != run.tokens.len() => bail!("the native run kept no digests of its logits"),
            None => None,
        };
        self.output.line(&line(&run, difference.as_deref(), self.reference.is_none()))?;
        self.runs.push(RunReport {
            run: run.label.clone(),
            identical: difference.is_none(),
            difference,
            tokens: run.tokens.len(),
            finish_reason: finish_name(run.finish_reason),
            wall_ms: run.wall_ms,
            cost: run.cost,
        });
        self.reference.get_or_insert(run);
        Ok(())
    }

    fn verdict(self) -> Result<()> {
        let Some(reference) = self.reference else { bail!("nothing was run") };
        let different = self.runs.iter().filter(|run| !run.identical).count();
        let report = Report {
            identical: different == 0,
            prompt_tokens: reference.prompt.len(),
            positions: reference.digests.len(),
            vocabulary: reference.logits.len(),
            tokens: reference.tokens,
            text: reference.text,
            runs: self.runs,
        };
        self.output.document(&report, |out| {
            if different > 0 {
                return writeln!(out, "parity: DIFFERENT in {different} of {} runs", report.runs.len());
            }
            let logits = grouped((report.positions * report.vocabulary) as u128);
            writeln!(
                out,
                "parity: all {logits} logits of {} generated tokens are bit-identical in {} runs",
                report.positions,
                report.runs.len()
            )
        })?;
        if different > 0 {
            bail!("{different} of {} runs differ from the reference", report.runs.len());
        }
        Ok(())
    }
}

fn line(run: &Run, difference: Option<&str>, is_reference: bool) -> String {
    let verdict = match difference {
        Some(difference) => format!("DIFFERENT: {difference}"),
        None if is_reference => "reference".to_owned(),
        None => "identical".to_owned(),
    };
    let cost = run.cost.map_or(String::new(), |cost| {
        format!(", {} calls, {} instructions", grouped(cost.calls.into()), short(cost.instructions.into()))
    });
    format!("{:<32} {:>4} tokens in {:>6.1} s{cost}: {verdict}", run.label, run.tokens.len(), run.wall_ms / 1e3)
}

/// Where `run` first departs from `reference`, if it does.
fn difference(reference: &Run, run: &Run) -> Option<String> {
    if let Some(at) = first_difference(&reference.prompt, &run.prompt) {
        return Some(format!("the prompts' tokens differ from index {at} on"));
    }
    let logits = first_difference(&reference.digests, &run.digests);
    let tokens = first_difference(&reference.tokens, &run.tokens);
    match (logits, tokens) {
        (Some(at), token) if token.is_none_or(|token| at <= token) => {
            return Some(format!("the logits of generated token {at} have other bits"));
        }
        (_, Some(at)) => return Some(format!("generated token {at} is another one, from the same logits")),
        (Some(at), None) => return Some(format!("the logits of generated token {at} have other bits")),
        (None, None) => {}
    }
    let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
    if let Some(at) = first_difference(&bits(&reference.logits), &bits(&run.logits)) {
        let of = |run: &Run| run.logits.get(at).copied();
        return Some(format!("logit {at} of the last position: {:?} and {:?}", of(reference), of(run)));
    }
    if reference.text != run.text {
        return Some("the text differs, from the same tokens".to_owned());
    }
    if reference.finish_reason != run.finish_reason {
        let names = (finish_name(reference.finish_reason), finish_name(run.finish_reason));
        return Some(format!("it ended by {} and not by {}", names.1, names.0));
    }
    None
}

/// The first index at which the lists differ; the end of the shorter one counts.
fn first_difference<T: PartialEq>(left: &[T], right: &[T]) -> Option<usize> {
    let at = left.iter().zip(right).position(|(left, right)| left != right);
    at.or((left.len() != right.len()).then_some(left.len().min(right.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            label: "test".to_owned(),
            prompt: vec![1, 2],
            tokens: vec![3, 4],
            text: "ab".to_owned(),
            digests: vec![5, 6],
            logits: vec![0.5, -0.0],
            finish_reason: FinishReason::Length,
            cost: None,
            wall_ms: 0.0,
        }
    }

    #[test]
    fn equal_runs_have_no_difference() {
        assert_eq!(difference(&run(), &run()), None);
    }

    #[test]
    fn every_kind_of_difference_is_found_and_located() {
        type Case = (fn(&mut Run), &'static str);
        let cases: [Case; 8] = [
            (|run| run.prompt.push(9), "prompts' tokens differ from index 2"),
            (|run| run.digests[1] = 0, "logits of generated token 1"),
            (|run| run.tokens[1] = 0, "generated token 1 is another one"),
            (|run| run.digests.clear(), "logits of generated token 0"),
            (|run| run.logits[1] = 0.0, "logit 1 of the last position"),
            (|run| run.logits[0] = f32::NAN, "logit 0 of the last position"),
            (|run| run.text.clear(), "the text differs"),
            (|run| run.finish_reason = FinishReason::ContextFull, "ended by context_full and not by length"),
        ];
        for (change, expected) in cases {
            let mut changed = run();
            change(&mut changed);
            let found = difference(&run(), &changed).unwrap();
            assert!(found.contains(expected), "{found}");
        }
    }
}
