//! Any local endpoint as a host: calls are signed, sent and verified by ic-agent, each sender's by an agent of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use candid::{CandidType, Deserialize, Nat, Principal};
use end_to_end::{CallKind, Host, InstallMode, Reject};
use ic_agent::identity::BasicIdentity;
use ic_agent::{Agent, AgentError};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

/// An endpoint and those who talk to it. Clones are the same.
#[derive(Clone)]
pub struct Agents {
    url: String,
    runtime: Arc<Runtime>,
    /// By the principals of tests, which have no keys: the agent's own is another.
    agents: Arc<Mutex<BTreeMap<Principal, Agent>>>,
}

#[derive(CandidType)]
struct Create {
    amount: Option<Nat>,
    settings: Option<Settings>,
}

#[derive(CandidType)]
struct Settings {
    controllers: Option<Vec<Principal>>,
}

#[derive(CandidType, Deserialize)]
struct Managed {
    canister_id: Principal,
}

#[derive(CandidType, Deserialize)]
enum Mode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade(Option<()>),
}

#[derive(CandidType)]
struct Install<'a> {
    mode: Mode,
    canister_id: Principal,
    wasm_module: &'a serde_bytes::Bytes,
    arg: ByteBuf,
}

impl Agents {
    /// Agents of an endpoint; its root key is fetched when the first calls.
    pub fn new(url: String) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { url, runtime: Arc::new(runtime), agents: Arc::default() }
    }

    /// The agent whose key is made from the principal that a test calls it by.
    fn agent(&self, sender: Principal) -> Agent {
        let mut agents = self.agents.lock().unwrap();
        let new = || {
            let identity = BasicIdentity::from_raw_key(&Sha256::digest(sender.as_slice()).into());
            let agent = Agent::builder().with_url(&self.url).with_identity(identity).build().unwrap();
            self.runtime.block_on(agent.fetch_root_key()).unwrap();
            agent
        };
        agents.entry(sender).or_insert_with(new).clone()
    }

    fn manage(
        &self,
        method: &str,
        about: Principal,
        sender: Principal,
        arg: &impl CandidType,
    ) -> Result<Vec<u8>, Reject> {
        let agent = self.agent(sender);
        let arg = candid::encode_one(arg).unwrap();
        let call = agent.update(&Principal::management_canister(), method).with_effective_canister_id(about);
        self.runtime.block_on(call.with_arg(arg).call_and_wait()).map_err(|error| reject(&error))
    }
}

/// The reject, or the failure to call at all with the code 0.
fn reject(error: &AgentError) -> Reject {
    let (AgentError::CertifiedReject { reject, .. } | AgentError::UncertifiedReject { reject, .. }) = error else {
        return Reject { error_code: 0, message: error.to_string() };
    };
    let code = reject.error_code.as_deref().and_then(|code| code.strip_prefix("IC")?.parse().ok());
    Reject { error_code: code.unwrap_or(0), message: reject.reject_message.clone() }
}

impl Host for Agents {
    fn create(&mut self, controllers: &[Principal]) -> Principal {
        let controllers: Vec<_> =
            controllers.iter().map(|controller| self.agent(*controller).get_principal().unwrap()).collect();
        let arg =
            Create { amount: Some(Nat::from(1u64 << 60)), settings: Some(Settings { controllers: Some(controllers) }) };
        let method = "provisional_create_canister_with_cycles";
        let anyone = Principal::management_canister();
        let reply = self.manage(method, anyone, anyone, &arg).unwrap();
        candid::decode_one::<Managed>(&reply).unwrap().canister_id
    }

    fn install(
        &mut self,
        canister_id: Principal,
        mode: InstallMode,
        module: &[u8],
        arg: &[u8],
        sender: Principal,
    ) -> Result<(), Reject> {
        let mode = match mode {
            InstallMode::Install => Mode::Install,
            InstallMode::Reinstall => Mode::Reinstall,
            InstallMode::Upgrade => Mode::Upgrade(None),
        };
        let arg = Install { mode, canister_id, wasm_module: module.into(), arg: ByteBuf::from(arg) };
        self.manage("install_code", canister_id, sender, &arg).map(|_| ())
    }

    fn call(
        &mut self,
        kind: CallKind,
        canister: Principal,
        sender: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<Vec<u8>, Reject> {
        let agent = self.agent(sender);
        match kind {
            CallKind::Update => self.runtime.block_on(agent.update(&canister, method).with_arg(arg).call_and_wait()),
            CallKind::Query => self.runtime.block_on(agent.query(&canister, method).with_arg(arg).call()),
        }
        .map_err(|error| reject(&error))
    }

    fn advance(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn stop(&mut self, canister_id: Principal, sender: Principal) {
        self.manage("stop_canister", canister_id, sender, &Managed { canister_id }).unwrap();
    }

    fn start(&mut self, canister_id: Principal, sender: Principal) {
        self.manage("start_canister", canister_id, sender, &Managed { canister_id }).unwrap();
    }

    fn heaviest_message(&mut self) -> Option<u64> {
        None
    }
}
