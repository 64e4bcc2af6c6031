//! The shim as a host.

use std::time::Duration;

use candid::{CandidType, Nat, Principal};
use local_runner::shim::config::Config;
use local_runner::shim::limits::Limits;
use local_runner::shim::reject;
use local_runner::shim::replica::{self, Replica};
use local_runner::shim::report::{CallReport, MessageReport};

use crate::{CallKind, Host, InstallMode, Reject};

/// Argument of the management canister's methods about one canister.
#[derive(CandidType)]
struct Managed {
    canister_id: Principal,
}

/// Argument of `provisional_create_canister_with_cycles`; the caller becomes the controller.
#[derive(CandidType)]
struct CreateAt {
    specified_id: Option<Principal>,
}

/// Argument of `provisional_top_up_canister`.
#[derive(CandidType)]
struct TopUp {
    canister_id: Principal,
    amount: Nat,
}

/// A replica of the shim.
pub struct ShimHost {
    replica: Replica,
    heaviest: u64,
}

impl ShimHost {
    /// A replica with the platform's limits.
    pub fn new() -> Self {
        Self::of(Config::default())
    }

    /// One whose canisters begin with so many cycles.
    pub fn with_cycles(initial_cycles: u128) -> Self {
        Self::of(Config { initial_cycles, ..Config::default() })
    }

    /// One that takes fees from balances, and refuses what they do not cover.
    pub fn with_fees() -> Self {
        Self::of(Config { enforce_cycles: true, ..Config::default() })
    }

    /// Another host in the same state, messages on their way included, that goes on by itself.
    pub fn fork(&mut self) -> Self {
        Self { replica: self.replica.fork().unwrap(), heaviest: 0 }
    }

    /// The replica itself, for what other platforms do not offer.
    pub fn replica(&mut self) -> &mut Replica {
        &mut self.replica
    }

    fn of(config: Config) -> Self {
        Self { replica: Replica::new(config).unwrap(), heaviest: 0 }
    }

    /// Gives a canister more cycles.
    pub fn top_up(&mut self, canister_id: Principal, amount: u64) {
        let arg = candid::encode_one(TopUp { canister_id, amount: amount.into() }).unwrap();
        let method = "provisional_top_up_canister";
        self.replica.update(Principal::management_canister(), canister_id, method, &arg).result.unwrap();
    }

    /// Stops the canister before anything that is queued is executed.
    pub fn stop_at_once(&mut self, canister_id: Principal, sender: Principal) {
        let arg = candid::encode_one(Managed { canister_id }).unwrap();
        let call = self.replica.submit(Principal::management_canister(), sender, "stop_canister", &arg).unwrap();
        self.replica.hurry_last();
        self.replica.wait(call).result.unwrap();
    }

    /// Changes the limits of all messages to come.
    pub fn set_limits(&mut self, change: impl FnOnce(&mut Limits)) {
        self.replica.change_limits(change);
    }

    /// Lets time pass without running any timer.
    pub fn advance_without_timers(&mut self, time: Duration) {
        self.replica.advance_time(time.as_nanos() as u64);
    }

    /// 64 bits that change with the content or size of stable memory (FNV-1a over 64-bit words).
    pub fn stable_digest(&self, canister: Principal) -> u64 {
        let stable = self.replica.canister(canister).unwrap().stable();
        let mut page = vec![0; 1 << 16];
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ stable.pages();
        for index in 0..stable.pages() {
            stable.read(index << 16, &mut page).unwrap();
            for word in page.chunks_exact(8) {
                let word = u64::from_le_bytes(word.try_into().unwrap());
                hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        hash
    }

    /// [`Host::heaviest_message`], which the shim always knows.
    pub fn heaviest(&mut self) -> u64 {
        std::mem::take(&mut self.heaviest)
    }

    /// Creates an empty canister with an id of the caller's choice.
    pub fn create_at(&mut self, id: Principal, controller: Principal) {
        let arg = candid::encode_one(CreateAt { specified_id: Some(id) }).unwrap();
        let report = self.replica.update(
            Principal::management_canister(),
            controller,
            "provisional_create_canister_with_cycles",
            &arg,
        );
        report.result.unwrap();
    }

    fn manage(&mut self, method: &str, canister_id: Principal, sender: Principal) {
        let arg = candid::encode_one(Managed { canister_id }).unwrap();
        self.replica.update(Principal::management_canister(), sender, method, &arg).result.unwrap();
    }

    fn note(&mut self, messages: &[MessageReport]) {
        let heaviest = messages.iter().map(|message| message.instructions).max();
        self.heaviest = self.heaviest.max(heaviest.unwrap_or(0));
    }

    fn finished(&mut self, report: CallReport) -> Result<Vec<u8>, Reject> {
        self.note(&report.messages);
        report.result.map_err(rejected)
    }
}

impl Default for ShimHost {
    fn default() -> Self {
        Self::new()
    }
}

impl Host for ShimHost {
    fn create(&mut self, controllers: &[Principal]) -> Principal {
        self.replica.create_canister(controllers.iter().copied())
    }

    fn install(
        &mut self,
        canister: Principal,
        mode: InstallMode,
        module: &[u8],
        arg: &[u8],
        sender: Principal,
    ) -> Result<(), Reject> {
        let mode = match mode {
            InstallMode::Install => replica::InstallMode::Install,
            InstallMode::Reinstall => replica::InstallMode::Reinstall,
            InstallMode::Upgrade => replica::InstallMode::Upgrade { skip_pre_upgrade: false },
        };
        let report = self.replica.install(canister, mode, module, arg, sender);
        self.finished(report).map(|_| ())
    }

    fn call(
        &mut self,
        kind: CallKind,
        canister: Principal,
        sender: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<Vec<u8>, Reject> {
        let report = match kind {
            CallKind::Update => self.replica.update(canister, sender, method, arg),
            CallKind::Query => self.replica.query(canister, sender, method, arg),
        };
        self.finished(report)
    }

    fn advance(&mut self, time: Duration) {
        self.replica.advance_time(time.as_nanos() as u64);
        let messages = self.replica.run_timers();
        self.note(&messages);
    }

    fn stop(&mut self, canister: Principal, sender: Principal) {
        self.manage("stop_canister", canister, sender);
    }

    fn start(&mut self, canister: Principal, sender: Principal) {
        self.manage("start_canister", canister, sender);
    }

    fn heaviest_message(&mut self) -> Option<u64> {
        Some(self.heaviest())
    }
}

fn rejected(reject: reject::Reject) -> Reject {
    Reject { error_code: reject.error_code, message: reject.message }
}
