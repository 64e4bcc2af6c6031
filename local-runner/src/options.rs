//! Groups of command line options that several commands share, and what they mean for the model. Knows
//! nothing of backends.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use model_core::gguf::{File, Value};
use model_core::grammar::{Grammar, JSON};
use model_core::kernels::Kernel;
use model_core::model::{CachePrecision, LoadOptions};
use model_core::pack::{Precision, Residency};
use model_core::sample::Sampling;
use model_core::tokenizer::Tokenizer;

use crate::hub::HubFile;
use crate::model_file::ModelFile;

/// What the user calls a model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelName {
    /// A path.
    Path(PathBuf),
    /// A file of the hub.
    Hub(HubFile),
}

impl ModelName {
    /// Where the file is; fetches it if need be.
    pub fn path(&self) -> Result<PathBuf> {
        match self {
            Self::Path(path) => Ok(path.clone()),
            Self::Hub(file) => Ok(file.fetch()?),
        }
    }

    /// Last part of the name.
    pub fn file_name(&self) -> Cow<'_, str> {
        match self {
            Self::Path(path) => path.file_name().unwrap_or_default().to_string_lossy(),
            Self::Hub(file) => file.file_name().into(),
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Hub(file) => file.fmt(f),
        }
    }
}

/// Reads [`ModelName`]s from the command line.
pub fn model_name() -> impl TypedValueParser<Value = ModelName> {
    PathBufValueParser::new().try_map(|path| match path.to_str().and_then(HubFile::parse) {
        Some(file) => file.map(ModelName::Hub),
        None => Ok(ModelName::Path(path)),
    })
}

/// The model file and how it is read.
#[derive(Debug, Clone, Args)]
pub struct FileArgs {
    /// Model file (GGUF), or hf:OWNER/REPO/FILE.gguf (or FILE.gguf@REVISION) to fetch it from the Hugging Face hub.
    #[arg(value_parser = model_name())]
    pub model: ModelName,
    #[command(flatten)]
    pub reading: ReadingArgs,
}

/// How a model file is read, and what is taken from elsewhere.
#[derive(Debug, Clone, Args)]
pub struct ReadingArgs {
    /// Replace a metadata value of the file, as llama.cpp does: TYPE is int, float, bool or str. Repeatable.
    #[arg(long, value_name = "KEY=TYPE:VALUE", value_parser = parse_override)]
    pub override_kv: Vec<(String, Value)>,
    /// Take the vocabulary from this Hugging Face tokenizer.json instead of the model file.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
}

impl FileArgs {
    /// Opens the model file, which is fetched before if it is on the hub.
    pub fn open(&self) -> Result<ModelFile> {
        Ok(ModelFile::open(&self.model.path()?)?)
    }

    /// Reads the vocabulary alone.
    pub fn load_tokenizer(&self) -> Result<Tokenizer> {
        let source = self.open()?;
        let file = File::read(&source).with_context(|| format!("cannot read {}", self.model))?;
        Ok(match self.reading.tokenizer.as_deref() {
            Some(path) => Tokenizer::from_json(&read_bytes(path)?, file.metadata())
                .with_context(|| format!("cannot use {}", path.display()))?,
            None => Tokenizer::from_gguf(file.metadata())?,
        })
    }
}

/// The model and how it is kept in memory.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    #[command(flatten)]
    pub file: FileArgs,
    #[command(flatten)]
    pub keeping: KeepingArgs,
}

/// How a model is kept in memory.
#[derive(Debug, Clone, Copy, Args)]
pub struct KeepingArgs {
    /// How four-bit weights are kept in memory: a byte each, half a byte each, or what suits the model and the machine. The
    /// result does not depend on it.
    #[arg(long, value_enum, default_value = "auto", requires = "model")]
    pub residency: ResidencyChoice,
    /// Bits of the activations that four-bit weights are multiplied with, 16 or 8. 8 take fewer instructions in a canister, and
    /// are about as precise as llama.cpp; the result differs a little.
    #[arg(long, value_name = "BITS", default_value = "16", value_parser = parse_activations, requires = "model")]
    pub activations: Precision,
}

/// The model of a command that can also talk to a deployed canister, which has one.
#[derive(Debug, Clone, Args)]
pub struct OptionalModelArgs {
    /// Model file (GGUF), or hf:OWNER/REPO/FILE.gguf (or FILE.gguf@REVISION) to fetch it from the Hugging Face hub. A deployed
    /// canister has its own.
    #[arg(value_parser = model_name(), required_unless_present = "canister")]
    pub model: Option<ModelName>,
    #[command(flatten)]
    pub reading: ReadingArgs,
    #[command(flatten)]
    pub keeping: KeepingArgs,
}

impl KeepingArgs {
    /// Whether an option was given.
    pub fn is_set(&self) -> bool {
        self.residency != ResidencyChoice::Auto || self.activations != Precision::default()
    }
}

impl OptionalModelArgs {
    /// The model, if one was named.
    pub fn given(&self) -> Option<ModelArgs> {
        let (reading, keeping) = (self.reading.clone(), self.keeping);
        let file = |model| FileArgs { model, reading };
        self.model.clone().map(|model| ModelArgs { file: file(model), keeping })
    }
}

/// A residency, or the one that suits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResidencyChoice {
    /// What suits the model and the machine.
    Auto,
    /// A byte for each code.
    Wide,
    /// Half a byte for each code of the four-bit formats.
    Compact,
}

impl ResidencyChoice {
    /// The residency, if one was chosen.
    pub fn residency(self) -> Option<Residency> {
        match self {
            Self::Auto => None,
            Self::Wide => Some(Residency::Wide),
            Self::Compact => Some(Residency::Compact),
        }
    }
}

impl ModelArgs {
    /// Opens the model file.
    pub fn open(&self) -> Result<ModelFile> {
        self.file.open()
    }

    /// Whether something else than the file decides what the model is.
    pub fn is_overridden(&self) -> bool {
        self.file.reading.tokenizer.is_some() || !self.file.reading.override_kv.is_empty()
    }

    /// What the loader needs to know.
    pub fn load_options(&self, kernel: Option<Kernel>) -> Result<LoadOptions> {
        let tokenizer_json = self.file.reading.tokenizer.as_deref().map(read_bytes).transpose()?;
        let (overrides, residency) = (self.file.reading.override_kv.clone(), self.keeping.residency.residency());
        let precision = self.keeping.activations;
        Ok(LoadOptions { kernel, overrides, tokenizer_json, precision, residency, ..LoadOptions::default() })
    }
}

/// How the native backend computes.
#[derive(Debug, Clone, Args)]
pub struct NativeArgs {
    /// Threads of the native backend [default: all cores]. The result does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Vector instructions of the native backend: auto, scalar, avx2, .. [default: auto]. The result does not depend on it.
    #[arg(long, value_name = "NAME", value_parser = parse_kernel)]
    pub kernel: Option<KernelChoice>,
}

impl NativeArgs {
    /// The number of threads to use.
    pub fn thread_count(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(all, usize::from)
    }

    /// The kernel to use; `None` for the best one.
    pub fn kernel(&self) -> Option<Kernel> {
        self.kernel.and_then(|choice| choice.0)
    }

    /// Whether an option was given.
    pub fn is_set(&self) -> bool {
        self.threads.is_some() || self.kernel.is_some()
    }
}

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, Args)]
pub struct CacheArgs {
    /// Bits of the codes that keys and values are kept as, 16 or 8. 8 halve the memory of a conversation; the result
    /// differs a little.
    #[arg(long, value_name = "BITS", default_value = "16", value_parser = parse_precision)]
    pub kv_cache: CachePrecision,
}

/// A kernel by name, or the best one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelChoice(pub Option<Kernel>);

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
                if text.is_empty() && self.file.is_none() {
                    bail!("the prompt is empty: nothing came from stdin; use -p TEXT or -f FILE");
                }
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

/// How tokens are chosen. The defaults are those of llama.cpp.
#[derive(Debug, Args)]
pub struct SamplingArgs {
    /// Temperature; 0 always takes the most probable token [default: 0.8].
    #[arg(long)]
    temp: Option<f32>,
    /// Keep the K most probable tokens; 0 keeps all [default: 40].
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Keep the most probable tokens that together reach this probability [default: 0.95].
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep tokens at least this probable relative to the most probable one [default: 0.05].
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Divide (or multiply) the logits of recent tokens by this; 1 does nothing [default: 1].
    #[arg(long, value_name = "X")]
    repeat_penalty: Option<f32>,
    /// How many recent tokens the penalties look at; 0 none [default: 64].
    #[arg(long, value_name = "N")]
    repeat_last_n: Option<u32>,
    /// Subtract this times the number of recent occurrences from a token's logit [default: 0].
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Subtract this from the logit of any token that occurred recently [default: 0].
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Seed of the random choices; the same seed gives the same text everywhere [default: 0; of a server, another one for
    /// each request].
    #[arg(long)]
    seed: Option<u64>,
}

impl SamplingArgs {
    /// The sampler's settings, with temperature 0 unless another is given.
    pub fn sampling_or_greedy(&self) -> Sampling {
        Sampling { temperature: self.temp.unwrap_or(0.0), ..self.sampling() }
    }

    /// The seed, if one was chosen.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// The sampler's settings.
    pub fn sampling(&self) -> Sampling {
        let default = Sampling::default();
        Sampling {
            temperature: self.temp.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(default.repeat_penalty),
            repeat_last_n: self.repeat_last_n.unwrap_or(default.repeat_last_n),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            seed: self.seed.unwrap_or(default.seed),
        }
    }
}

/// What answers have to look like.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct GrammarArgs {
    /// Generate only what this grammar describes (GBNF, the notation of llama.cpp's grammars).
    #[arg(long, value_name = "TEXT")]
    grammar: Option<String>,
    /// Read the grammar from a file.
    #[arg(long, value_name = "FILE")]
    grammar_file: Option<PathBuf>,
    /// Generate one JSON object.
    #[arg(long)]
    json_mode: bool,
}

impl GrammarArgs {
    /// The grammar's text, if there is one.
    ///
    /// # Errors
    /// If its file cannot be read, or the grammar is wrong.
    pub fn grammar(&self) -> Result<Option<String>> {
        let text = match (&self.grammar, &self.grammar_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => read_text(path)?,
            (None, None) if self.json_mode => JSON.to_owned(),
            (None, None) => return Ok(None),
        };
        Grammar::parse(&text)?;
        Ok(Some(text))
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

fn parse_kernel(name: &str) -> Result<KernelChoice, String> {
    if name == "auto" {
        return Ok(KernelChoice(None));
    }
    let available = Kernel::available();
    match available.iter().find(|kernel| kernel.name() == name) {
        Some(kernel) => Ok(KernelChoice(Some(*kernel))),
        None => {
            let names: Vec<_> = available.iter().map(|kernel| kernel.name()).collect();
            Err(format!("this machine has: auto, {}", names.join(", ")))
        }
    }
}

fn parse_activations(bits: &str) -> Result<Precision, String> {
    bits.parse().ok().and_then(Precision::with_activation_bits).ok_or_else(|| "it must be 16 or 8".to_owned())
}

fn parse_precision(bits: &str) -> Result<CachePrecision, String> {
    bits.parse().ok().and_then(CachePrecision::from_bits).ok_or_else(|| "it must be 16 or 8".to_owned())
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
    fn the_defaults_are_those_that_the_help_names() {
        #[derive(clap::Parser)]
        struct Probe {
            #[command(flatten)]
            sampling: SamplingArgs,
        }
        let probe = <Probe as clap::Parser>::parse_from(["probe"]).sampling.sampling();
        let named = Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        };
        assert_eq!(probe, named);
    }

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
