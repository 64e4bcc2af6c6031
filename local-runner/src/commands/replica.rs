//! `icllama replica`: a local endpoint of the Internet Computer around the shim.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use candid::{CandidType, Nat, Principal};
use local_runner::endpoint::{Endpoint, Options, Pace, Setup};
use local_runner::http::CONNECTIONS;
use local_runner::shim::candid_text::Interface;
use local_runner::shim::replica::canister_id;
use local_runner::shim::{Config, InstallMode, Replica};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::backend::wasm_path;
use crate::interrupt::Interrupts;
use crate::options::read_bytes;
use crate::output::{Output, note};

/// How often signals are looked for.
const WATCH: Duration = Duration::from_millis(50);
/// The heap that the canister may use: packed weights and caches need more than the platform's default of 3 GiB.
const WASM_MEMORY_BYTES: u64 = 3840 << 20;
/// The number of the first canister, which gets the id rrkah-fqaaa-aaaaa-aaaaq-cai.
const FIRST_CANISTER: u64 = 1;

/// Serve the shim as a local Internet Computer, for agents, command line tools and browsers.
///
/// Runs until Ctrl-C. With --state the canisters are there again at the next start.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port to listen at; 0 for any that is free.
    #[arg(long, value_name = "N", default_value_t = 4943)]
    port: u16,
    /// Address to listen at. Others than loopback let the whole network in.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Folder to keep keys and canisters in [default: all is forgotten at the end].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Save so often, as far as something changed; 0 for only at the end.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    save_every: u64,
    /// Milliseconds after which a call that has not ended is left to polling, as on the platform.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    sync_ms: u64,
    /// Milliseconds from one round, with timers and heartbeats, to the next.
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    round_ms: u64,
    /// Requests that one address may make per second; more are refused with status 429. 0 for no limit.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    requests_per_second: u32,
    /// Connections at a time. Of more, those that ask nothing are cut, the oldest first.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    #[command(flatten)]
    install: InstallArgs,
}

/// A canister that is there from the start.
#[derive(Debug, clap::Args)]
struct InstallArgs {
    /// Install the icllama canister, or upgrade it if it is there with another module.
    #[arg(long)]
    install: bool,
    /// The canister's wasm [default: $ICLLAMA_WASM, else target/icllama.wasm.gz as scripts/build-canister.sh writes it].
    #[arg(long, value_name = "FILE", requires = "install")]
    wasm: Option<PathBuf>,
    /// Argument of the installation as candid text.
    #[arg(long, value_name = "ARGS", default_value = "()", requires = "install")]
    init: String,
    /// Who controls the canister. Repeatable.
    #[arg(long, value_name = "PRINCIPAL", default_values_t = [Principal::anonymous()], requires = "install")]
    controller: Vec<Principal>,
}

/// What is said at the start.
#[derive(Debug, Serialize)]
struct Started {
    url: String,
    root_key: String,
    subnet_id: Principal,
    canister_id: Option<Principal>,
    canister_url: Option<String>,
    canisters: usize,
}

#[derive(CandidType)]
struct UpdateSettings {
    canister_id: Principal,
    settings: MemorySettings,
}

#[derive(CandidType)]
struct MemorySettings {
    wasm_memory_limit: Option<Nat>,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let interrupts = Interrupts::new().context("cannot handle Ctrl-C")?;
        let mut setup = Setup::open(self.options(output))?;
        let canister = if self.install.install { Some(self.install.apply(&mut setup.replica)?) } else { None };
        let canisters = setup.replica.canisters().count();
        let endpoint = setup.serve()?;
        let watched = interrupts.watch();
        Started::new(&endpoint, canister, canisters).print(output)?;
        while !watched.is_raised() && !endpoint.has_failed() {
            std::thread::sleep(WATCH);
        }
        // From here on another Ctrl-C ends the program without saving.
        drop(watched);
        let failed = endpoint.has_failed();
        if let Some(folder) = &self.state {
            note(&format!("finishing open calls and saving to {}", folder.display()));
        }
        endpoint.stop()?;
        if failed { bail!("the replica ended by itself") } else { Ok(()) }
    }

    fn options(&self, output: Output) -> Options {
        Options {
            host: self.host,
            port: self.port,
            folder: self.state.clone(),
            pace: Pace {
                round: Duration::from_millis(self.round_ms),
                save: (self.save_every > 0).then(|| Duration::from_secs(self.save_every)),
            },
            sync: Duration::from_millis(self.sync_ms),
            connections: self.connections.into(),
            requests_per_second: NonZeroU32::new(self.requests_per_second),
            config: Config::default(),
            log: Arc::new(move |line| output.log(|| line)),
        }
    }
}

impl InstallArgs {
    /// Makes the canister be there with this module; answers its id.
    fn apply(&self, replica: &mut Replica) -> Result<Principal> {
        let path = wasm_path(self.wasm.clone())?;
        let wasm = read_bytes(&path)?;
        let interface = Interface::of_module(&wasm).with_context(|| format!("in {}", path.display()))?;
        let init = interface.encode_init(&self.init)?;
        let first = canister_id(FIRST_CANISTER);
        let id = if replica.canister(first).is_some() { first } else { self.create(replica)? };
        let canister = replica.canister(id).context("the canister is not there")?;
        let controllers = &canister.settings().controllers;
        let owner = *controllers.first().with_context(|| format!("nobody controls canister {id}"))?;
        let mode = if canister.code().is_some() { InstallMode::UPGRADE } else { InstallMode::Install };
        let is_there = canister.module_hash() == Some(Sha256::digest(&wasm).into());
        if !is_there {
            let report = replica.install(id, mode, &wasm, &init, owner);
            report.result.map_err(|reject| anyhow!("{} could not be installed: {reject}", path.display()))?;
        }
        Ok(id)
    }

    fn create(&self, replica: &mut Replica) -> Result<Principal> {
        let id = replica.create_canister(self.controller.iter().copied());
        let owner = *self.controller.first().context("the canister needs a controller")?;
        let settings = MemorySettings { wasm_memory_limit: Some(WASM_MEMORY_BYTES.into()) };
        let arg = candid::encode_one(UpdateSettings { canister_id: id, settings })?;
        let report = replica.update(Principal::management_canister(), owner, "update_settings", &arg);
        report.result.map_err(|reject| anyhow!("the canister's settings were rejected: {reject}"))?;
        Ok(id)
    }
}

impl Started {
    fn new(endpoint: &Endpoint, canister: Option<Principal>, canisters: usize) -> Self {
        let address = endpoint.address();
        Self {
            url: format!("http://{address}"),
            root_key: endpoint.root_key().iter().map(|byte| format!("{byte:02x}")).collect(),
            subnet_id: endpoint.subnet_id(),
            canister_id: canister,
            canister_url: canister.map(|id| page_url(id, address)),
            canisters,
        }
    }

    fn print(&self, output: Output) -> Result<()> {
        output.document(self, |out| self.write(out))
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "replica   {}", self.url)?;
        writeln!(out, "root key  {}", self.root_key)?;
        if let (Some(id), Some(url)) = (&self.canister_id, &self.canister_url) {
            writeln!(out, "canister  {id}\npage      {url}")?;
        }
        writeln!(out, "{} canisters; Ctrl-C ends", self.canisters)
    }
}

/// Where browsers find a canister.
fn page_url(id: Principal, address: SocketAddr) -> String {
    if address.ip().is_loopback() {
        format!("http://{id}.localhost:{}/", address.port())
    } else {
        format!("http://{address}/?canisterId={id}")
    }
}
