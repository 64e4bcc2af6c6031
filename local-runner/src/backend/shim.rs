//! The model in its real canister, run and metered by the shim.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use candid::Principal;
use canister::api;
use local_runner::shim::costs::PageCharges;
use local_runner::shim::mode::Mode;
use local_runner::shim::{CallReport, Config, InstallMode, MessageReport, Replica};
use model_core::source::ByteSource;

use super::args::ShimArgs;
use super::canister::{CanisterBackend, Plan};
use super::client::{Answer, Client, Transport};
use super::convert::{activation_bits, residency};
use super::cost::{CallCost, add_to_phase};
use super::{activations_note, millis};
use crate::digest::hex;
use crate::options::{ModelArgs, ResidencyChoice, read_bytes};
use crate::output::{Output, byte_size, note};
use crate::split_file::merged_name;

/// A canister of its own in a shim of its own, with its model and at most one session.
pub type ShimBackend = CanisterBackend<ShimTransport>;

/// Calls to a canister in the shim.
pub struct ShimTransport {
    replica: Replica,
    canister: Principal,
    owner: Principal,
    wasm: Vec<u8>,
}

impl ShimTransport {
    /// Installs the wasm with settings in a fresh shim; answers with the cost of the installation.
    fn install(wasm: Vec<u8>, config: api::ConfigUpdate) -> Answer<Self> {
        let mut replica = Replica::new(Config::default())?;
        let owner = Principal::self_authenticating(b"the owner of the canister");
        let canister = replica.create_canister([owner]);
        let mut transport = Self { replica, canister, owner, wasm };
        let arg = api::InitArg { config: Some(config) };
        let cost = transport.install_code(InstallMode::Install, Some(arg))?;
        Ok((transport, cost))
    }

    fn install_code(&mut self, mode: InstallMode, arg: Option<api::InitArg>) -> Result<CallCost> {
        let start = Instant::now();
        let arg = candid::encode_one(arg).context("cannot encode the installation's argument")?;
        let report = self.replica.install(self.canister, mode, &self.wasm, &arg, self.owner);
        let cost = self.cost("install_code", &report, start);
        report.result.map_err(|reject| anyhow!("the installation was rejected: {reject}"))?;
        Ok(cost)
    }

    fn cost(&self, method: &'static str, report: &CallReport, start: Instant) -> CallCost {
        CallCost {
            method,
            prompt_tokens: 0,
            generated_tokens: 0,
            instructions: report.instructions(),
            page_instructions: Some(report.page_instructions()),
            admission_instructions: Some(report.messages.iter().filter(is_admission).map(computing).sum()),
            cycles: report.cycles(self.replica.config().nodes),
            wall_ms: millis(start.elapsed()),
        }
    }
}

impl Transport for ShimTransport {
    const NAME: &'static str = "shim";
    const IS_STREAMING: bool = false;
    const IS_ELSEWHERE: bool = false;

    fn update(&mut self, method: &'static str, arg: Vec<u8>) -> Answer<Vec<u8>> {
        let start = Instant::now();
        let report = self.replica.update(self.canister, self.owner, method, &arg);
        let cost = self.cost(method, &report, start);
        Ok((reply(method, report)?, cost))
    }

    fn query(&mut self, method: &str, arg: Vec<u8>) -> Result<Vec<u8>> {
        reply(method, self.replica.query(self.canister, self.owner, method, &arg))
    }

    fn read(&mut self, method: &'static str, arg: Vec<u8>) -> Result<Vec<u8>> {
        self.query(method, arg)
    }

    fn upgrade(&mut self) -> Result<CallCost> {
        self.install_code(InstallMode::UPGRADE, None)
    }
}

impl ShimBackend {
    /// Installs the canister, uploads the model and has it loaded.
    ///
    /// # Errors
    /// If the wasm or the model is absent, or a call fails.
    pub fn install(model: &ModelArgs, shim: &ShimArgs, output: Output) -> Result<Self> {
        let wasm_path = shim.wasm_path()?;
        let source = model.open()?;
        let name = merged_name(&model.file.model.file_name());
        let plan = Plan {
            max_instructions: shim.max_instructions.into_iter().collect(),
            tokens_per_call: shim.tokens_per_call,
            upgrade_at: None,
        };
        let config = api::ConfigUpdate {
            residency: Some(residency(model.keeping.residency)),
            activation_bits: Some(activation_bits(model.keeping.activations)),
            ..api::ConfigUpdate::default()
        };
        let mut backend = Self::with_model(&wasm_path, config, &name, &source, plan)?;
        if !output.is_json() || output.is_verbose() {
            note(&backend.installation(&wasm_path)?);
        }
        Ok(backend)
    }

    fn with_model(
        wasm_path: &Path,
        config: api::ConfigUpdate,
        name: &str,
        source: &dyn ByteSource,
        plan: Plan,
    ) -> Result<Self> {
        let start = Instant::now();
        let (transport, cost) = ShimTransport::install(read_bytes(wasm_path)?, config)
            .with_context(|| format!("cannot install {}", wasm_path.display()))?;
        let mut backend = Self::new(Client::new(transport), plan);
        add_to_phase(&mut backend.phases, "install", &cost);
        backend.client.upload(name, source, &mut |phase, cost| add_to_phase(&mut backend.phases, phase, cost))?;
        backend.load()?;
        backend.load_ms = millis(start.elapsed());
        Ok(backend)
    }

    fn installation(&mut self, wasm_path: &Path) -> Result<String> {
        let calls: u64 = self.phases.iter().map(|phase| phase.cost.calls).sum();
        let model = self.model_info()?;
        Ok(format!(
            "{} installed; model uploaded, verified by the canister (sha256 {}) and loaded ({}{}, {} packed) in {calls} calls, {:.1} s",
            wasm_path.display(),
            hex(&model.file.sha256),
            model.residency,
            activations_note(model.activation_bits),
            byte_size(model.packed_bytes),
            self.load_ms / 1e3
        ))
    }

    /// How often the canister was upgraded.
    pub fn upgrades(&self) -> u64 {
        self.phases.iter().find(|phase| phase.name == "upgrade").map_or(0, |phase| phase.cost.calls)
    }

    /// Has the canister keep the weights in another way, and load them again.
    ///
    /// # Errors
    /// If a call fails.
    pub fn set_residency(&mut self, choice: ResidencyChoice) -> Result<()> {
        self.configure(&api::ConfigUpdate { residency: Some(residency(choice)), ..api::ConfigUpdate::default() })?;
        self.upgrade()
    }

    /// Changes what pages cost from now on.
    pub fn change_page_charges(&mut self, charges: PageCharges) {
        self.client.transport().replica.change_page_charges(charges);
    }
}

fn is_admission(message: &&MessageReport) -> bool {
    message.mode == Mode::InspectMessage
}

/// Instructions besides those for pages.
fn computing(message: &MessageReport) -> u64 {
    message.instructions - message.heap.instructions() - message.stable.instructions()
}

fn reply(method: &str, report: CallReport) -> Result<Vec<u8>> {
    report.result.map_err(|reject| anyhow!("{method} was rejected: {reject}"))
}
