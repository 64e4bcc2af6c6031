//! The options that choose and shape a backend.

use std::env;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use model_core::chat::ChatTemplate;
use model_core::session::SessionOptions;

use super::native::NativeBackend;
use super::network::NetworkBackend;
use super::shim::ShimBackend;
use super::{Backend, ChatSupport, Input};
use crate::network::{DeployedArgs, Network};
use crate::options::{ModelArgs, NativeArgs};
use crate::output::Output;

/// What scripts/build-canister.sh leaves in the target folder.
const WASM_NAME: &str = "icllama.wasm.gz";
/// Reading the weights takes a hundredth of the time that so many tokens are multiplied with them.
pub const NATIVE_PREFILL_BATCH: usize = 128;

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendKind {
    /// In this process, with its threads and the processor's vector instructions.
    Native,
    /// In the canister's wasm, metered as on the Internet Computer.
    Shim,
}

/// How a prompt becomes input.
#[derive(Debug, Clone, Args)]
pub struct ModeArgs {
    /// Treat the prompt as a chat message [default: if the model file has a chat template, or one is given].
    #[arg(long, conflicts_with = "raw")]
    pub chat: bool,
    /// Continue the prompt as plain text, without any chat template.
    #[arg(long, conflicts_with_all = ["chat_template", "chat_template_file", "chat_template_kwargs", "reasoning", "tools"])]
    pub raw: bool,
    /// System message of the chat; empty for none but the template's own.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Obey the control tokens that the prompt spells, such as <|im_start|>. Without it they are plain text.
    #[arg(long, requires = "raw")]
    pub parse_special: bool,
}

impl ModeArgs {
    /// The system message, if there is one.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref().filter(|text| !text.is_empty())
    }

    /// What the model is given for `text`. As in llama.cpp a template that was only guessed has to be asked for.
    ///
    /// # Errors
    /// If a chat is asked for and the model has no template.
    pub fn input(&self, text: &str, chat: &ChatSupport) -> Result<Input> {
        let asked = self.chat || self.system.is_some();
        if asked && !chat.exists() {
            bail!("{}; or use --raw to continue the prompt as plain text", no_chat_template());
        }
        let is_chat = asked || (*chat == ChatSupport::Template && !self.raw);
        Ok(if is_chat { Input::turn(self.system(), text) } else { Input::Text(text.to_owned()) })
    }
}

/// What to say where a conversation is wanted and cannot be rendered.
pub fn no_chat_template() -> String {
    let known: Vec<_> = ChatTemplate::built_in().collect();
    format!(
        "the model has no chat template, and it is not seen which built-in one fits; choose one with --chat-template ({})",
        known.join(", ")
    )
}

/// The backend and its options.
#[derive(Debug, Clone, Args)]
pub struct BackendArgs {
    /// Where the model runs.
    #[arg(long, value_enum, default_value = "native")]
    pub backend: BackendKind,
    #[command(flatten)]
    pub native: NativeArgs,
    #[command(flatten)]
    pub shim: ShimArgs,
}

/// How the canister is run in the shim.
#[derive(Debug, Clone, Args)]
pub struct ShimArgs {
    /// The canister's wasm [default: $ICLLAMA_WASM, else target/icllama.wasm.gz as scripts/build-canister.sh writes it].
    #[arg(long, value_name = "FILE")]
    pub wasm: Option<PathBuf>,
    /// Canister: instructions after which a call stops computing [default: the canister's own].
    #[arg(long, value_name = "N")]
    pub max_instructions: Option<u64>,
    /// Canister: tokens after which a call stops generating [default: as many as fit; of a deployed canister 16, so that the
    /// answer is seen to grow].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens_per_call: Option<u32>,
}

impl BackendArgs {
    /// Refuses options that do not go with the backend.
    ///
    /// # Errors
    /// Names the options.
    pub fn check(&self, model: &ModelArgs) -> Result<()> {
        match self.backend {
            BackendKind::Native if self.shim.is_set() => {
                bail!("--wasm, --max-instructions and --tokens-per-call need --backend shim")
            }
            BackendKind::Shim if self.native.is_set() => bail!("--threads and --kernel need --backend native"),
            BackendKind::Shim if model.is_overridden() => bail!(
                "the canister takes everything from the model file: --tokenizer and --override-kv need --backend native"
            ),
            BackendKind::Native | BackendKind::Shim => Ok(()),
        }
    }

    /// Tokens per batch of a prompt. Natively more than in the canister, where memory is short: a batch reads all weights
    /// from memory once.
    pub fn prefill_batch(&self) -> usize {
        match self.backend {
            BackendKind::Native => NATIVE_PREFILL_BATCH,
            BackendKind::Shim => SessionOptions::default().prefill_batch,
        }
    }

    /// Starts the backend with the model.
    ///
    /// # Errors
    /// If the model cannot be loaded, or the options do not go with the backend.
    pub fn open(&self, model: &ModelArgs, output: Output) -> Result<Box<dyn Backend>> {
        self.check(model)?;
        Ok(match self.backend {
            BackendKind::Native => Box::new(NativeBackend::load(model, &self.native)?),
            BackendKind::Shim => Box::new(ShimBackend::install(model, &self.shim, output)?),
        })
    }
}

/// Where a model runs: here, or in a canister that is deployed somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Here.
    Here(BackendKind),
    /// In a deployed canister.
    Network(Network),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(kind) = BackendKind::from_str(text, false) {
            return Ok(Self::Here(kind));
        }
        text.parse().map(Self::Network).map_err(|_: String| {
            "it must be native (in this process), shim (in the canister's wasm, metered as on the Internet Computer), \
             or a network with a deployed canister: ic, local or a URL"
                .to_owned()
        })
    }
}

/// The backend and its options, where it may also be a deployed canister.
#[derive(Debug, Clone, Args)]
pub struct AnyBackendArgs {
    /// Where the model runs: native (in this process, with its threads and the processor's vector instructions), shim (in the
    /// canister's wasm, metered as on the Internet Computer), or the network on which --canister is deployed: ic, local
    /// (http://127.0.0.1:4943) or a URL.
    #[arg(long, value_name = "PLACE", default_value = "native")]
    pub backend: Place,
    #[command(flatten)]
    pub native: NativeArgs,
    #[command(flatten)]
    pub shim: ShimArgs,
    #[command(flatten)]
    pub deployed: DeployedArgs,
}

impl AnyBackendArgs {
    /// The options of a backend that is here.
    fn here(&self, kind: BackendKind) -> BackendArgs {
        BackendArgs { backend: kind, native: self.native.clone(), shim: self.shim.clone() }
    }

    /// Whether the model runs in this process.
    pub fn is_native(&self) -> bool {
        self.backend == Place::Here(BackendKind::Native)
    }

    /// Tokens per batch of a prompt, as for [`BackendArgs::prefill_batch`].
    pub fn prefill_batch(&self) -> usize {
        match self.backend {
            Place::Here(kind) => self.here(kind).prefill_batch(),
            Place::Network(_) => SessionOptions::default().prefill_batch,
        }
    }

    /// Starts the backend; with the model, unless a deployed canister has it.
    ///
    /// # Errors
    /// If the model cannot be loaded, the canister cannot be reached, or the options do not go with the backend.
    pub fn open(&self, model: Option<&ModelArgs>, output: Output) -> Result<Box<dyn Backend>> {
        let network = match &self.backend {
            Place::Here(kind) => {
                let model = model.context("no model given; name one, or the network of --canister with --backend")?;
                return self.here(*kind).open(model, output);
            }
            Place::Network(network) => network,
        };
        let is_changed = |model: &ModelArgs| model.is_overridden() || model.keeping.is_set();
        if self.native.is_set() || self.shim.wasm.is_some() || model.is_some_and(is_changed) {
            bail!(
                "a deployed canister has its own model and code: --threads, --kernel, --wasm, --tokenizer, --override-kv, \
                 --residency and --activations do not go with --backend {network}"
            );
        }
        let mut backend = NetworkBackend::open(self.deployed.connect(network)?, &self.shim)?;
        if let Some(model) = model {
            backend.check_model(&model.open()?)?;
        }
        Ok(Box::new(backend))
    }
}

impl ShimArgs {
    fn is_set(&self) -> bool {
        self.wasm.is_some() || self.max_instructions.is_some() || self.tokens_per_call.is_some()
    }

    /// Finds the canister's wasm.
    ///
    /// # Errors
    /// If it is not where it was said to be, or not built.
    pub fn wasm_path(&self) -> Result<PathBuf> {
        wasm_path(self.wasm.clone())
    }
}

/// Finds the canister's wasm: where it was said to be, or where it is built.
///
/// # Errors
/// If it is not there.
pub fn wasm_path(given: Option<PathBuf>) -> Result<PathBuf> {
    let given = given.or_else(|| env::var_os("ICLLAMA_WASM").map(PathBuf::from));
    if let Some(path) = given {
        if !path.is_file() {
            bail!("there is no canister wasm at {}; build it with scripts/build-canister.sh", path.display());
        }
        return Ok(path);
    }
    match default_wasm_paths().into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => {
            bail!("no target/icllama.wasm.gz found; build it with scripts/build-canister.sh, or name it with --wasm")
        }
    }
}

/// Beside the build of this command, and in the target folder of the workspace around the current folder.
fn default_wasm_paths() -> Vec<PathBuf> {
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join(WASM_NAME)));
    let around = env::current_dir().unwrap_or_default();
    beside.into_iter().chain(around.ancestors().map(|folder| folder.join("target").join(WASM_NAME))).collect()
}
