//! The `icllama` command: parse, dispatch, exit code.

mod backend;
mod candid_json;
mod chat_options;
mod clock;
mod commands;
mod digest;
mod exit_code;
mod hub;
mod interrupt;
mod large_pages;
mod model_file;
mod network;
mod new_file;
mod options;
mod output;
mod progress;
mod quantize;
mod serve;
mod settings;
mod split_file;
mod trace;
mod upload;

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
    Chat(Box<commands::chat::Args>),
    Tokenize(commands::tokenize::Args),
    Inspect(commands::inspect::Args),
    Quantize(commands::quantize::Args),
    Logits(commands::logits::Args),
    Perplexity(commands::perplexity::Args),
    Parity(Box<commands::parity::Args>),
    Bench(commands::bench::Args),
    Shim(commands::shim::Args),
    Serve(Box<commands::serve::Args>),
    Replica(commands::replica::Args),
    Upload(commands::upload::Args),
    Status(commands::status::Args),
    Sessions(commands::sessions::Args),
    Logs(commands::logs::Args),
    Config(commands::config::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::survive_file_size_limits();
    let output = Output::new(cli.json, cli.verbose);
    match dispatch(cli.command, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("error: {}", describe_error(&error)));
            exit_code::of(&error).into()
        }
    }
}

fn dispatch(command: Command, output: Output) -> Result<()> {
    match command {
        Command::Run(args) => args.exec(output),
        Command::Chat(args) => args.exec(output),
        Command::Tokenize(args) => args.exec(output),
        Command::Inspect(args) => args.exec(output),
        Command::Quantize(args) => args.exec(output),
        Command::Logits(args) => args.exec(output),
        Command::Perplexity(args) => args.exec(output),
        Command::Parity(args) => args.exec(output),
        Command::Bench(args) => args.exec(output),
        Command::Shim(args) => args.exec(output),
        Command::Serve(args) => args.exec(output),
        Command::Replica(args) => args.exec(output),
        Command::Upload(args) => args.exec(output),
        Command::Status(args) => args.exec(output),
        Command::Sessions(args) => args.exec(output),
        Command::Logs(args) => args.exec(output),
        Command::Config(args) => args.exec(output),
    }
}

/// The error and its causes, leaving out those that an earlier message has told already.
fn describe_error(error: &anyhow::Error) -> String {
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Where the reference of the command is kept.
    const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");

    fn reference() -> String {
        let mut text = String::from(
            "# The command\n\nThe help of every verb, written by a test: `ICLLAMA_UPDATE=1 cargo test -p local-runner \
             --bin icllama` renews it.\n",
        );
        let mut root = Cli::command();
        root.build();
        describe(&root, "icllama", &mut text);
        text
    }

    fn describe(command: &clap::Command, path: &str, text: &mut String) {
        let help = command.clone().render_long_help().to_string();
        let help: Vec<_> = help.lines().map(str::trim_end).collect();
        text.push_str(&format!("\n## {path}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            describe(verb, &format!("{path} {}", verb.get_name()), text);
        }
    }

    #[test]
    fn the_reference_shows_the_help_of_every_verb() {
        if std::env::var_os("ICLLAMA_UPDATE").is_some() {
            std::fs::write(REFERENCE, reference()).unwrap();
        }
        let kept = std::fs::read_to_string(REFERENCE).unwrap();
        assert!(kept == reference(), "docs/cli.md is not up to date; renew it as its first lines say");
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_that_was_told_is_not_repeated() {
        let error = anyhow::anyhow!("no such file").context("cannot open x: no such file").context("cannot load");
        assert_eq!(describe_error(&error), "cannot load: cannot open x: no such file");
    }
}
