//! What the service needs from the platform, as a trait with the Internet Computer behind it; tests put
//! a fake there. Besides the attributes in `lib.rs` and the calls to itself in `llm` the only user of `ic_cdk`.

use std::time::Duration;

use candid::Principal;
use model_core::profile::Counter;

/// The platform, as seen during one message.
pub trait Env {
    /// Who called.
    fn caller(&self) -> Principal;
    /// Whether `who` controls the canister.
    fn is_controller(&self, who: &Principal) -> bool;
    /// Nanoseconds since 1970.
    fn time_ns(&self) -> u64;
    /// Instructions used by this message so far.
    fn instructions(&self) -> u64;
    /// Reads the same.
    fn counter(&self) -> Counter;
    /// Size of the heap in bytes.
    fn heap_bytes(&self) -> u64;
    /// The canister's id.
    fn own_id(&self) -> Principal;
    /// The canister's balance.
    fn cycles(&self) -> u128;
    /// The part of the balance above what the freezing threshold reserves.
    fn liquid_cycles(&self) -> u128;
    /// Has the platform certify `root`. In updates only.
    fn certify(&self, root: &[u8; 32]);
    /// The platform's certificate for what it was given last; in queries only.
    fn certificate(&self) -> Option<Vec<u8>>;
    /// Asks for a call of [`crate::service::Service::background`] in a message of its own, soon.
    fn wake_soon(&self);
    /// Asks for a call of [`crate::service::Service::watchdog`] after `delay_ns`.
    fn watch_after(&self, delay_ns: u64);
    /// Asks for a call of [`crate::service::Service::expiry_due`] after `delay_ns`.
    fn expire_after(&self, delay_ns: u64);
    /// Writes a line to the canister's log.
    fn log(&self, line: &str);
}

/// The Internet Computer.
#[derive(Debug, Clone, Copy)]
pub struct IcEnv {
    /// What a timer started by [`Env::wake_soon`] runs.
    pub on_wake: fn(),
    /// What a timer started by [`Env::watch_after`] runs.
    pub on_watch: fn(),
    /// What a timer started by [`Env::expire_after`] runs.
    pub on_expiry: fn(),
}

impl Env for IcEnv {
    fn caller(&self) -> Principal {
        ic_cdk::api::msg_caller()
    }

    fn is_controller(&self, who: &Principal) -> bool {
        ic_cdk::api::is_controller(who)
    }

    fn time_ns(&self) -> u64 {
        ic_cdk::api::time()
    }

    fn instructions(&self) -> u64 {
        self.counter()()
    }

    fn counter(&self) -> Counter {
        || ic_cdk::api::performance_counter(0u32)
    }

    fn heap_bytes(&self) -> u64 {
        heap_bytes()
    }

    fn own_id(&self) -> Principal {
        ic_cdk::api::canister_self()
    }

    fn cycles(&self) -> u128 {
        ic_cdk::api::canister_cycle_balance()
    }

    fn liquid_cycles(&self) -> u128 {
        ic_cdk::api::canister_liquid_cycle_balance()
    }

    fn certify(&self, root: &[u8; 32]) {
        ic_cdk::api::certified_data_set(root);
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        ic_cdk::api::data_certificate()
    }

    fn wake_soon(&self) {
        let on_wake = self.on_wake;
        ic_cdk_timers::set_timer(Duration::ZERO, async move { on_wake() });
        // The platform drops a timer whose message it cannot run (a canister without cycles). ic_cdk_timers does not
        // notice and sets no later one, so this one, which is due at once, is set again.
        ic_cdk::api::global_timer_set(ic_cdk::api::time());
    }

    fn watch_after(&self, delay_ns: u64) {
        let on_watch = self.on_watch;
        ic_cdk_timers::set_timer(Duration::from_nanos(delay_ns), async move { on_watch() });
    }

    fn expire_after(&self, delay_ns: u64) {
        let on_expiry = self.on_expiry;
        ic_cdk_timers::set_timer(Duration::from_nanos(delay_ns), async move { on_expiry() });
    }

    fn log(&self, line: &str) {
        ic_cdk::api::debug_print(line);
    }
}

#[cfg(target_arch = "wasm32")]
fn heap_bytes() -> u64 {
    core::arch::wasm32::memory_size(0) as u64 * 65536
}

#[cfg(not(target_arch = "wasm32"))]
fn heap_bytes() -> u64 {
    0
}
