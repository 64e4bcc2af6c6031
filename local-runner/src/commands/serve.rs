//! `icllama serve`: a local server with OpenAI's API, for a model in this process or in a deployed canister.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use local_runner::http::{CONNECTIONS, Listener, Server};
use model_core::session::SessionOptions;
use serde::Serialize;

use crate::backend::native::NativeBackend;
use crate::backend::network::NetworkBackend;
use crate::backend::{Backend, ChatSupport, NATIVE_PREFILL_BATCH, ShimArgs, no_chat_template};
use crate::chat_options::ChatArgs;
use crate::interrupt::Interrupts;
use crate::network::NetworkArgs;
use crate::options::{
    CacheArgs, FileArgs, ModelArgs, ModelName, NativeArgs, OptionalModelArgs, SamplingArgs, model_name, read_text,
};
use crate::output::{Output, note};
use crate::serve::{Access, Catalog, Defaults, Site, Slots, Worker};

/// How often signals are looked for.
const WATCH: Duration = Duration::from_millis(50);
/// Most tokens of a canister's answer, unless told otherwise.
const DEPLOYED_TOKENS: u32 = 1024;

/// Serve a model to programs that speak OpenAI's API: chats, completions, streamed or not.
///
/// Point them at http://127.0.0.1:8080/v1. The model is MODEL, in this process, or without one that of a deployed canister
/// (--canister). What is served, and what requests may say: docs/serve.md. Runs until Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: OptionalModelArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// Of a canister: tokens after which a call stops generating. Few make a smooth stream, many are cheaper.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    tokens_per_call: u32,
    /// Of a canister: a file of its model, whose vocabulary names tokens in log probabilities and echoes.
    #[arg(long, value_name = "MODEL", value_parser = model_name(), conflicts_with = "model")]
    vocabulary: Option<ModelName>,
    /// Port to listen at; 0 for any that is free.
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Address to listen at. Others than loopback let the whole network in: give an --api-key, too.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Key that clients have to send. Repeatable.
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// Read keys from a file, one in each line.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Let web pages of this origin use the server; * for all. Those of this machine may in any case. Repeatable.
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// What clients call the model [default: the file's name].
    #[arg(short, long, value_name = "NAME")]
    alias: Option<String>,
    /// Requests that are answered at a time. Each has a conversation in memory, that of the last request included, whose
    /// beginning is not computed again.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Requests that may wait; more are refused.
    #[arg(long, value_name = "N", default_value_t = 64)]
    queue: usize,
    #[command(flatten)]
    native: NativeArgs,
    #[command(flatten)]
    generate: DefaultArgs,
}

/// What holds where a request says nothing else.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Where a request says nothing else")]
struct DefaultArgs {
    /// Generate at most N tokens (per answer) [default: until the context is full; of a canister, where they cost cycles, 1024].
    #[arg(short, long, value_name = "N")]
    n_predict: Option<u32>,
    /// Obey the control tokens that prompts of completions spell, such as <|im_start|>. In messages they always stay text.
    #[arg(long)]
    parse_special: bool,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

/// What is said at the start.
#[derive(Debug, Serialize)]
struct Started<'a> {
    url: String,
    model: &'a str,
    backend: String,
}

/// The workers and what is known of the model.
struct Engine {
    workers: Vec<Worker>,
    catalog: Catalog,
    chat: ChatSupport,
    prefill_batch: usize,
    max_tokens: u32,
    shows_tools: Option<bool>,
    description: String,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let access = Access::new(&self.keys()?, self.cors_origin.clone());
        let interrupts = Interrupts::new().context("cannot handle Ctrl-C")?;
        let listener = Listener::bind(self.host, self.port)?;
        let engine = match self.model.given() {
            Some(_) if self.names_canister() => {
                bail!(
                    "MODEL is served by this process: leave it out to serve the canister's, or name it with --vocabulary"
                )
            }
            Some(model) => self.native(&model)?,
            None => self.deployed()?,
        };
        let defaults = self.generate.defaults(&engine)?;
        if let ChatSupport::Guessed(name) = &engine.chat {
            note(&format!("The model file has no chat template; its tokens or its name tell of {name}."));
        }
        let (slots, threads) = Slots::start(engine.workers, self.queue).context("cannot start the workers")?;
        let catalog = Arc::new(engine.catalog);
        let site = Site {
            catalog: Arc::clone(&catalog),
            defaults,
            access,
            slots: Arc::clone(&slots),
            no_chat: (!engine.chat.exists()).then(no_chat_template),
            shows_tools: engine.shows_tools,
        };
        let watched = interrupts.watch();
        let server =
            Server::start(listener, Arc::new(site), CONNECTIONS.into()).context("cannot start the server's threads")?;
        let url = format!("http://{}/v1", server.address());
        Started { url, model: &catalog.id, backend: engine.description }.print(output)?;
        while !watched.is_raised() && threads.iter().all(|thread| !thread.is_finished()) {
            std::thread::sleep(WATCH);
        }
        let was_asked = watched.is_raised();
        // From here on another Ctrl-C ends the program at once.
        drop(watched);
        stop(&slots, server, threads);
        if was_asked { Ok(()) } else { bail!("a worker ended by itself") }
    }

    fn keys(&self) -> Result<Vec<String>> {
        let file = self.api_key_file.as_deref().map(read_text).transpose()?;
        let lines = file.iter().flat_map(|text| text.lines()).map(str::trim).map(str::to_owned);
        let keys: Vec<_> = self.api_key.iter().cloned().chain(lines).filter(|key| !key.is_empty()).collect();
        if keys.is_empty() && (self.api_key_file.is_some() || !self.api_key.is_empty()) {
            bail!("the API key is empty");
        }
        Ok(keys)
    }

    /// Whether the command line itself says something of a canister. Variables may stand there for other commands.
    fn names_canister(&self) -> bool {
        let NetworkArgs { network, deployed } = &self.network;
        let said = [
            ("ICLLAMA_NETWORK", network.is_some()),
            ("ICLLAMA_CANISTER", deployed.canister.is_some()),
            ("ICLLAMA_IDENTITY", deployed.identity.is_some()),
        ];
        said.into_iter().any(|(variable, is_set)| is_set && std::env::var_os(variable).is_none())
    }

    /// Loads the model into this process.
    fn native(&self, model: &ModelArgs) -> Result<Engine> {
        let mut backend = NativeBackend::load(model, &self.native)?;
        if let Some(template) = self.generate.chat.template()? {
            backend.choose_chat_template(&template)?;
        }
        let id = self.name(&model.file.model.file_name());
        Ok(Engine {
            catalog: Catalog::native(id, backend.loaded()),
            chat: backend.chat_support(),
            prefill_batch: NATIVE_PREFILL_BATCH,
            max_tokens: u32::MAX,
            shows_tools: Some(backend.shows_tools()),
            description: backend.describe(),
            workers: (0..self.parallel).map(|_| Box::new(backend.another()) as Worker).collect(),
        })
    }

    /// Reaches the canister.
    fn deployed(&self) -> Result<Engine> {
        if self.native.is_set() {
            bail!("--threads and --kernel need a MODEL, which is served by this process");
        }
        let connection = self.network.connect()?;
        let calls = ShimArgs { wasm: None, max_instructions: None, tokens_per_call: Some(self.tokens_per_call) };
        let open = || NetworkBackend::open(connection.clone(), &calls);
        let mut first = open()?;
        if let Some(template) = self.generate.chat.template()? {
            first.choose_chat_template(&template)?;
        }
        let info = first.model_info()?;
        let tokenizer = self.vocabulary.clone().map(|model| {
            let file = FileArgs { model, reading: self.model.reading.clone() };
            first.check_model(&file.open()?)?;
            file.load_tokenizer()
        });
        let canister = self.network.deployed.canister.map(|id| id.to_text()).unwrap_or_default();
        let (chat, mut workers) = (first.chat_support(), vec![Box::new(first) as Worker]);
        for _ in 1..self.parallel {
            workers.push(Box::new(open()?));
        }
        Ok(Engine {
            catalog: Catalog::deployed(self.name(&info.file.name), &info, tokenizer.transpose()?),
            chat,
            prefill_batch: SessionOptions::default().prefill_batch,
            max_tokens: DEPLOYED_TOKENS,
            shows_tools: None,
            description: format!("canister {canister} on {}", self.network.network().url()),
            workers,
        })
    }

    /// What clients call a model.
    fn name(&self, file_name: &str) -> String {
        self.alias.clone().unwrap_or_else(|| file_name.trim_end_matches(".gguf").to_owned())
    }
}

/// Ends the answers that are being made, then the connections.
fn stop(slots: &Slots, server: Server, threads: Vec<JoinHandle<()>>) {
    slots.stop();
    for thread in threads {
        // What it panicked of it has told already.
        thread.join().ok();
    }
    server.stop();
}

impl DefaultArgs {
    fn defaults(&self, engine: &Engine) -> Result<Defaults> {
        let mut input = self.chat.input()?;
        input.parse_special = self.parse_special;
        let options = SessionOptions {
            max_tokens: self.n_predict.unwrap_or(engine.max_tokens),
            sampling: self.sampling.sampling(),
            kv_cache: self.cache.kv_cache,
            input,
            prefill_batch: engine.prefill_batch,
            ..SessionOptions::default()
        };
        options.validate()?;
        Ok(Defaults { options, seed: self.sampling.seed() })
    }
}

impl Started<'_> {
    fn print(&self, output: Output) -> Result<()> {
        output.document(self, |out| {
            writeln!(out, "server   {}\nmodel    {}\nbackend  {}", self.url, self.model, self.backend)?;
            writeln!(out, "Ctrl-C ends")
        })
    }
}
