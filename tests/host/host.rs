//! What a test asks of the platform that runs the canister, whichever it is. Knows nothing of icllama.

use std::time::Duration;

use candid::Principal;

/// How a call reaches the canister.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Changes of the state are kept.
    Update,
    /// Changes of the state are dropped.
    Query,
}

/// What becomes of the canister's state when a module is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallMode {
    /// There is none yet.
    Install,
    /// It is dropped.
    Reinstall,
    /// Stable memory is kept.
    Upgrade,
}

/// A call that failed on the platform's side, as its caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The platform's error code: 406 for a refused ingress message, 502 and 503 for traps, 522 for the
    /// instruction limit.
    pub error_code: u32,
    /// The platform's text.
    pub message: String,
}

/// A platform with canisters.
pub trait Host {
    /// Makes an empty canister with plenty of cycles.
    fn create(&mut self, controllers: &[Principal]) -> Principal;

    /// Installs `module`; `sender` has to be a controller.
    ///
    /// # Errors
    /// What trapped in the module's init or upgrade hooks; the canister is then as before.
    fn install(
        &mut self,
        canister: Principal,
        mode: InstallMode,
        module: &[u8],
        arg: &[u8],
        sender: Principal,
    ) -> Result<(), Reject>;

    /// Sends an ingress message and waits for the reply.
    ///
    /// # Errors
    /// What rejected it.
    fn call(
        &mut self,
        kind: CallKind,
        canister: Principal,
        sender: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<Vec<u8>, Reject>;

    /// Lets time pass; timers that became due run, and those which they start at once may run too.
    fn advance(&mut self, time: Duration);

    /// Stops the canister; `sender` has to be a controller.
    fn stop(&mut self, canister: Principal, sender: Principal);

    /// Starts the canister again.
    fn start(&mut self, canister: Principal, sender: Principal);

    /// Instructions of the heaviest single message, timers included, since this was asked last; `None` if
    /// the platform does not tell.
    fn heaviest_message(&mut self) -> Option<u64>;
}

/// A new host of every kind at hand: the shim always, PocketIC where the feature is on and
/// `POCKET_IC_BIN` names its server.
pub fn hosts() -> Vec<Box<dyn Host>> {
    #[allow(unused_mut, reason = "changed with the feature pocket-ic only")]
    let mut hosts: Vec<Box<dyn Host>> = vec![Box::new(crate::ShimHost::new())];
    #[cfg(feature = "pocket-ic")]
    if std::env::var_os("POCKET_IC_BIN").is_some() {
        hosts.push(Box::new(crate::pocket_ic::PocketIcHost::new()));
    }
    hosts
}
