//! Groups of command line options that several commands share, and what they mean for the model. Knows
//! nothing of backends.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use model_core::gguf::Value;

use crate::model_file::{LoadMode, ModelFile};

/// The model and how it is read.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Model file (GGUF).
    pub model: PathBuf,
    /// Map the file, or read it into the heap first.
    #[arg(long, value_enum, default_value = "mmap")]
    pub load: LoadMode,
    /// Replace a metadata value of the file, as llama.cpp does: TYPE is int, float, bool or str. Repeatable.
    #[arg(long, value_name = "KEY=TYPE:VALUE", value_parser = parse_override)]
    pub override_kv: Vec<(String, Value)>,
    /// Take the vocabulary from this Hugging Face tokenizer.json instead of the model file.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
}

impl ModelArgs {
    /// Opens the model file.
    pub fn open(&self) -> Result<ModelFile> {
        Ok(ModelFile::open(&self.model, self.load)?)
    }

    /// Whether something else than the file decides what the model is.
    pub fn is_overridden(&self) -> bool {
        self.tokenizer.is_some() || !self.override_kv.is_empty()
    }
}
/// Where the prompt comes from.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// The text.
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file")]
    pub prompt: Option<String>,
    /// Read the text from a file (`-`: stdin).
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl TextArgs {
    /// The text given by argument, file or a stdin that is not a terminal; `None` when there is none of these.
    pub fn text(&self) -> Result<Option<String>> {
        match (&self.prompt, &self.file) {
            (Some(text), _) => Ok(Some(text.clone())),
            (None, Some(path)) if path != Path::new("-") => Ok(Some(read_text(path)?)),
            (None, None) if io::stdin().is_terminal() => Ok(None),
            (None, _) => {
                let mut text = String::new();
                io::stdin().read_to_string(&mut text).context("cannot read the text from stdin as UTF-8")?;
                Ok(Some(text))
            }
        }
    }

    /// The text, which must be given.
    pub fn required(&self) -> Result<String> {
        match self.text()? {
            Some(text) => Ok(text),
            None => bail!("no text given; use -p TEXT, -f FILE or pipe it in"),
        }
    }
}

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {} as UTF-8 text", path.display()))
}

/// Reads a file.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn parse_override(text: &str) -> Result<(String, Value), String> {
    let (key, typed) = text.split_once('=').ok_or("expected KEY=TYPE:VALUE")?;
    let (ty, value) = typed.split_once(':').ok_or("expected KEY=TYPE:VALUE")?;
    let value = match ty {
        "int" => value.parse().map(Value::I64).map_err(|error| format!("{value:?} is no integer: {error}"))?,
        "float" => value.parse().map(Value::F32).map_err(|error| format!("{value:?} is no number: {error}"))?,
        "bool" => value.parse().map(Value::Bool).map_err(|_| format!("{value:?} is neither true nor false"))?,
        "str" => Value::String(value.into()),
        _ => return Err(format!("the type is {ty:?}; it must be int, float, bool or str")),
    };
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_carry_their_type() {
        assert!(matches!(parse_override("a.b=int:-3"), Ok((key, Value::I64(-3))) if key == "a.b"));
        assert!(matches!(parse_override("a=float:1e-5"), Ok((_, Value::F32(x))) if x == 1e-5));
        assert!(matches!(parse_override("a=bool:true"), Ok((_, Value::Bool(true)))));
        assert!(matches!(parse_override("a=str:x=y:z"), Ok((_, Value::String(text))) if text.as_slice() == b"x=y:z"));
    }

    #[test]
    fn malformed_overrides_say_what_is_wrong() {
        for (text, part) in
            [("a", "KEY=TYPE:VALUE"), ("a=1", "KEY=TYPE:VALUE"), ("a=int:x", "integer"), ("a=u8:1", "int, float")]
        {
            let message = parse_override(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
