//! `icllama tokenize`: text to token ids and pieces.

use std::path::PathBuf;

use anyhow::{Context, Result};
use model_core::TokenId;
use model_core::tokenizer::{EncodeOptions, Tokenizer};
use serde::Serialize;

use crate::options::{FileArgs, TextArgs, read_bytes};
use crate::output::{self, Output};

/// Show the tokens of a text.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: FileArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Obey the control tokens that the text spells, such as <|im_start|>. Without it they are plain text.
    #[arg(long)]
    parse_special: bool,
    /// Add no beginning-of-sequence token even if the model asks for one.
    #[arg(long)]
    no_bos: bool,
    /// Tokenize every string of a JSON array in this file; prints one JSON array of ids per line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "file"])]
    batch: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    count: usize,
    ids: Vec<TokenId>,
    pieces: Vec<String>,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let tokenizer = self.model.load_tokenizer()?;
        match &self.batch {
            Some(path) => {
                let texts: Vec<String> = serde_json::from_slice(&read_bytes(path)?)
                    .with_context(|| format!("{} is not a JSON array of strings", path.display()))?;
                texts.iter().try_for_each(|text| output::write_json_line(&self.encode(&tokenizer, text)?))
            }
            None => self.show(&tokenizer, &self.text.required()?, output),
        }
    }

    fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<TokenId>> {
        let options = EncodeOptions { add_bos: !self.no_bos, parse_special: self.parse_special };
        Ok(tokenizer.encode(text, options)?)
    }

    fn show(&self, tokenizer: &Tokenizer, text: &str, output: Output) -> Result<()> {
        let ids = self.encode(tokenizer, text)?;
        let pieces = ids.iter().map(|id| piece(tokenizer, *id)).collect::<Result<Vec<_>>>()?;
        output.document(&Report { count: ids.len(), ids: ids.clone(), pieces: pieces.clone() }, |out| {
            for (id, piece) in ids.iter().zip(&pieces) {
                writeln!(out, "{id:>7}  {piece}")?;
            }
            Ok(())
        })
    }
}

/// A token's text, with bytes that are no whole characters written as `\xNN`; a control token's spelling.
pub(super) fn piece(tokenizer: &Tokenizer, id: TokenId) -> Result<String> {
    if tokenizer.is_control(id) {
        return Ok(tokenizer.token_text(id)?.to_string());
    }
    let bytes = tokenizer.token_bytes(id)?;
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.extend(chunk.valid().escape_debug());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    Ok(text)
}
