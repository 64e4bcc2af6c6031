//! The `icllama` command: parse, dispatch, exit code.

mod backend;
mod commands;
mod model_file;
mod options;
mod output;
mod progress;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::output::Output;

/// Runs, audits and measures Llama-family models natively and inside their Internet Computer canister.
#[derive(Debug, Parser)]
#[command(name = "icllama", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print JSON on stdout.
    #[arg(long, global = true)]
    json: bool,
    /// Print details to stderr.
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<commands::run::Args>),
    Tokenize(commands::tokenize::Args),
    Inspect(commands::inspect::Args),
    Logits(commands::logits::Args),
    Perplexity(commands::perplexity::Args),
    Parity(commands::parity::Args),
    Bench(commands::bench::Args),
    Shim(commands::shim::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json, cli.verbose);
    match dispatch(cli.command, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("error: {}", describe(&error)));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command, output: Output) -> Result<()> {
    match command {
        Command::Run(args) => args.exec(output),
        Command::Tokenize(args) => args.exec(output),
        Command::Inspect(args) => args.exec(output),
        Command::Logits(args) => args.exec(output),
        Command::Perplexity(args) => args.exec(output),
        Command::Parity(args) => args.exec(output),
        Command::Bench(args) => args.exec(output),
        Command::Shim(args) => args.exec(output),
    }
}

/// The error and its causes, leaving out those that an earlier message has told already.
fn describe(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |mut told, cause| {
        if told.is_empty() {
            return cause;
        }
        if !told.contains(&cause) {
            told.push_str(": ");
            told.push_str(&cause);
        }
        told
    })
}

/// Whether the reader of stdout has gone, as in `icllama inspect MODEL | head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let json = cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        io.or(json) == Some(std::io::ErrorKind::BrokenPipe)
    })
}
