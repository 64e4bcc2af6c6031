//! `icllama upload`: sends a model file to a deployed canister.

use std::env;
use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use local_runner::shim::cycles::REFERENCE_NODES;
use model_core::source::ByteSource;
use serde::Serialize;
use tokio::time::timeout;

use crate::digest::{hex, sha256};
use crate::interrupt::{Interrupted, Interrupts, Watched};
use crate::model_file::ModelFile;
use crate::network::{NetworkArgs, Patience, Remote};
use crate::options::{ModelName, model_name};
use crate::output::{Output, byte_size, grouped, short};
use crate::progress::Progress;
use crate::split_file::merged_name;
use crate::upload::{Chunk, Estimate, Job, Settings, Stage, Summary};

/// How often signals are looked for.
const WATCH: Duration = Duration::from_millis(50);
/// What the canister takes in one call (docs/candid.md, "Limits").
const CHUNK_BYTES: u64 = 2_000_000;

/// Send a model file to a deployed canister, and wait until it answers.
///
/// Only what the canister does not have yet is sent. After an interruption (Ctrl-C, a lost connection, another machine) the
/// same command goes on where it ended.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model file (GGUF), or hf:OWNER/REPO/FILE.gguf (or FILE.gguf@REVISION) to fetch it from the Hugging Face hub. Of a split
    /// file any part: the canister gets the one file that they are together.
    #[arg(value_parser = model_name())]
    model: ModelName,
    #[command(flatten)]
    network: NetworkArgs,
    /// What the canister shall call the file [default: its name].
    #[arg(long)]
    name: Option<String>,
    /// Chunks in flight at the same time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Failures of one call after which the upload is given up. The pauses between them grow to about 15 seconds.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    retries: u32,
    /// Give up the upload of another file that is going on.
    #[arg(long)]
    replace: bool,
    /// Do not wait for verification and loading, which go on by themselves.
    #[arg(long)]
    no_wait: bool,
    /// Show what it would cost, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Nodes of the canister's subnet, for prices [default: what the Internet Computer tells, else 13].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    nodes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct DryRun {
    name: String,
    bytes: u64,
    sha256: String,
    #[serde(flatten)]
    estimate: Estimate,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let source = ModelFile::open(&self.model.path()?)?;
        let name = self.name.clone().unwrap_or_else(|| merged_name(&self.model.file_name()));
        let sha256 = hashed(&source)?;
        output.line(&format!("{name}: {}, sha256 {}", byte_size(source.len()), hex(&sha256)))?;
        if self.dry_run {
            return self.estimate(name, &source, &sha256, output);
        }
        let interrupts = Interrupts::new().context("cannot watch for Ctrl-C")?;
        let connection = self.network.connect_with(Patience { failures: self.retries, ..Patience::default() })?;
        let settings = Settings {
            name,
            sha256,
            parallel: self.parallel.into(),
            replace: self.replace,
            wait: !self.no_wait,
            nodes: self.nodes.or_else(|| connection.nodes()).unwrap_or(REFERENCE_NODES),
        };
        let total = source.len();
        let job = Job::new(Remote::new(connection.clone()), source, settings, output);
        let watched = interrupts.watch();
        let done = connection.block_on(interruptible(job.run(), &watched));
        let summary = done.map_err(|error| resumable(error, job.there(), total))?;
        output.document(&summary, |out| write_end(&summary, out))
    }

    fn estimate(&self, name: String, source: &ModelFile, sha256: &[u8], output: Output) -> Result<()> {
        let bytes = source.len();
        let chunks = Chunk::filling(&[canister::api::ByteRange { offset: 0, bytes }], CHUNK_BYTES).len() as u64;
        let estimate = Estimate::new(bytes, bytes, chunks, self.nodes.unwrap_or(REFERENCE_NODES));
        let dry_run = DryRun { name, bytes, sha256: hex(sha256), estimate };
        output.document(&dry_run, |out| write_estimate(&estimate, out))
    }
}

fn hashed(source: &ModelFile) -> Result<Vec<u8>> {
    let progress = Progress::bytes("computing the hash", source.len());
    sha256(source, |read| progress.set(read))
}

/// The outcome of `work`, unless a signal comes before.
async fn interruptible<T>(work: impl Future<Output = Result<T>>, watched: &Watched<'_>) -> Result<T> {
    let mut work = pin!(work);
    loop {
        match timeout(WATCH, &mut work).await {
            Ok(done) => return done,
            Err(_) if watched.is_raised() => return Err(Interrupted.into()),
            Err(_) => {}
        }
    }
}

/// Says how to go on, if something of the file has arrived.
fn resumable(error: anyhow::Error, there: Option<u64>, total: u64) -> anyhow::Error {
    let Some(there) = there else { return error };
    let command: Vec<_> = env::args().map(|word| quoted(&word)).collect();
    error.context(format!(
        "{} of {} are in the canister, and the same command goes on from there: {}",
        byte_size(there),
        byte_size(total),
        command.join(" ")
    ))
}

/// A word as shells read it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn write_end(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    if let Some(sha256) = &summary.canister_sha256 {
        writeln!(out, "Verified by the canister: sha256 {sha256}")?;
    }
    if summary.chunks > 0 {
        writeln!(out, "About {} cycles were spent on chunks", short(summary.estimated_cycles))?;
    }
    match summary.stage {
        Stage::Ready => writeln!(out, "The model answers."),
        Stage::Loading => writeln!(out, "The model is being loaded; `icllama status` shows when it answers."),
        Stage::Verifying => {
            writeln!(out, "The file is being verified and then loaded; `icllama status` shows how far it is.")
        }
    }
}

fn write_estimate(estimate: &Estimate, out: &mut dyn Write) -> io::Result<()> {
    let row = |name: &str, value: String| format!("{name:<14} {value:>20}");
    writeln!(out, "{}", row("update calls", grouped(estimate.calls.into())))?;
    writeln!(out, "{}", row("message bytes", grouped(estimate.ingress_bytes.into())))?;
    writeln!(out, "{}", row("instructions", grouped(estimate.instructions.into())))?;
    writeln!(out, "{}   on a subnet of {} nodes", row("cycles", grouped(estimate.cycles)), estimate.nodes)?;
    writeln!(
        out,
        "{}   per day, for the file in stable memory",
        row("storage", grouped(estimate.storage_cycles_per_day))
    )?;
    writeln!(out, "Nothing was sent.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_go_on_with_can_be_pasted() {
        assert_eq!(quoted("models/x-1.gguf"), "models/x-1.gguf");
        assert_eq!(quoted("it's mine"), r"'it'\''s mine'");
        assert_eq!(quoted(""), "''");
    }
}
