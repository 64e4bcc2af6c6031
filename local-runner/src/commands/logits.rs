//! `icllama logits`: what the model thinks of every next token, position by position.

use std::io::{self, Write};

use anyhow::{Result, bail};
use model_core::TokenId;
use model_core::session::SessionOptions;
use serde::Serialize;

use crate::backend::native::NativeBackend;
use crate::backend::{Backend, BackendArgs, BackendKind, Input};
use crate::options::ModelArgs;
use crate::output::{self, Output};
use crate::progress::Progress;

/// Compute the logits after each of some tokens.
///
/// With `--json` one line per position. In the canister every position is a session of its own.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids, separated by commas.
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    tokens: Vec<TokenId>,
    /// Only the last position.
    #[arg(long)]
    last: bool,
    /// In text: show the K likeliest tokens of each position.
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
    #[command(flatten)]
    backend: BackendArgs,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Position<'a> {
    position: usize,
    token: TokenId,
    logits: &'a [f32],
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        self.backend.check(&self.model)?;
        let first = if self.last { self.tokens.len() - 1 } else { 0 };
        let show = |position: usize, logits: &[f32]| -> Result<()> {
            let Some(token) = self.tokens.get(position).copied().filter(|_| position >= first) else { return Ok(()) };
            if output.is_json() {
                return output::write_json_line(&Position { position, token, logits });
            }
            let mut out = io::stdout().lock();
            Ok(write_top(&mut out, position, token, logits, self.top)?)
        };
        match self.backend.backend {
            BackendKind::Native => {
                let backend = NativeBackend::load(&self.model, &self.backend.native)?;
                let mut failure = Ok(());
                backend.install(|model| {
                    model.logits_for(&self.tokens, |position, logits| {
                        if failure.is_ok() {
                            failure = show(position, logits);
                        }
                    })
                })?;
                failure
            }
            BackendKind::Shim => {
                let mut backend = self.backend.open(&self.model, output)?;
                let progress = Progress::count("computing", self.tokens.len() as u64, "positions");
                for position in first..self.tokens.len() {
                    show(position, &logits_after(backend.as_mut(), &self.tokens[..=position])?)?;
                    progress.set(position as u64 + 1);
                }
                Ok(())
            }
        }
    }
}

/// Logits after the last of `tokens`, from a session that generates one token.
fn logits_after(backend: &mut dyn Backend, tokens: &[TokenId]) -> Result<Vec<f32>> {
    backend.start(&Input::Tokens(tokens.to_vec()), &SessionOptions { max_tokens: 1, ..SessionOptions::default() })?;
    backend.generate(&mut |_| Ok(()))?;
    let logits = backend.logits()?;
    if logits.is_empty() {
        bail!("the backend keeps no logits");
    }
    Ok(logits)
}

fn write_top(out: &mut dyn Write, position: usize, token: TokenId, logits: &[f32], count: usize) -> io::Result<()> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    write!(out, "{position:>5} after {token:>7}:")?;
    for id in order.into_iter().take(count) {
        write!(out, "  {id} {:.4}", logits[id])?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_tokens_come_first() {
        let mut out = Vec::new();
        write_top(&mut out, 2, 7, &[0.5, f32::NEG_INFINITY, 2.0, -1.0], 3).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "    2 after       7:  2 2.0000  0 0.5000  3 -1.0000\n");
    }
}
