//! PocketIC as a host.

use std::time::Duration;

use candid::Principal;
use pocket_ic::{PocketIc, PocketIcBuilder, RejectResponse};

use crate::{CallKind, Host, InstallMode, Reject};

/// An application subnet of PocketIC.
pub struct PocketIcHost {
    server: PocketIc,
}

impl PocketIcHost {
    /// Starts the server that `POCKET_IC_BIN` names.
    pub fn new() -> Self {
        Self { server: PocketIcBuilder::new().with_application_subnet().build() }
    }
}

impl Host for PocketIcHost {
    fn create(&mut self, controllers: &[Principal]) -> Principal {
        let canister = self.server.create_canister();
        self.server.add_cycles(canister, 1 << 70);
        self.server.set_controllers(canister, None, controllers.to_vec()).unwrap();
        canister
    }

    fn install(
        &mut self,
        canister: Principal,
        mode: InstallMode,
        module: &[u8],
        arg: &[u8],
        sender: Principal,
    ) -> Result<(), Reject> {
        let (module, arg) = (module.to_vec(), arg.to_vec());
        match mode {
            InstallMode::Install => {
                self.server.install_canister(canister, module, arg, Some(sender));
                Ok(())
            }
            InstallMode::Reinstall => {
                self.server.reinstall_canister(canister, module, arg, Some(sender)).map_err(reject)
            }
            InstallMode::Upgrade => self.server.upgrade_canister(canister, module, arg, Some(sender)).map_err(reject),
        }
    }

    fn call(
        &mut self,
        kind: CallKind,
        canister: Principal,
        sender: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<Vec<u8>, Reject> {
        match kind {
            CallKind::Update => self.server.update_call(canister, sender, method, arg.to_vec()),
            CallKind::Query => self.server.query_call(canister, sender, method, arg.to_vec()),
        }
        .map_err(reject)
    }

    fn advance(&mut self, time: Duration) {
        self.server.advance_time(time);
        self.server.tick();
    }

    fn stop(&mut self, canister: Principal, sender: Principal) {
        self.server.stop_canister(canister, Some(sender)).unwrap();
    }

    fn start(&mut self, canister: Principal, sender: Principal) {
        self.server.start_canister(canister, Some(sender)).unwrap();
    }

    fn heaviest_message(&mut self) -> Option<u64> {
        None
    }
}

fn reject(response: RejectResponse) -> Reject {
    Reject { error_code: response.error_code as u32, message: response.reject_message }
}
