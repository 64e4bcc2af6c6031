//! Calls from users: refused early, or queued.

use candid::Principal;

use super::super::call_context::{CallId, Origin};
use super::super::cycles::Usage;
use super::super::execution::Input;
use super::super::message::Job;
use super::super::mode::Mode;
use super::super::queue::{Message, Request};
use super::super::reject::{Reject, error_code};
use super::Replica;

/// Entry point that decides whether a user's call is accepted.
const INSPECT_MESSAGE: &str = "canister_inspect_message";

/// What a signed envelope adds to argument and method name: addresses, expiry, public key, signature and field names.
///
/// An Ed25519 envelope as agents write it; used only for the price.
const ENVELOPE_BYTES: u64 = 350;

impl Replica {
    /// Queues a call to an update method after the canister accepted it in `canister_inspect_message`, if it has one.
    ///
    /// # Errors
    /// If the canister is not there, refuses, or cannot execute.
    pub fn submit(
        &mut self,
        canister: Principal,
        sender: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<CallId, Reject> {
        let bytes = (arg.len() + method.len()) as u64;
        let max = self.world.config.limits.messages.ingress_bytes;
        if bytes > max {
            return Err(Reject::new(
                error_code::INVALID_MANAGEMENT_PAYLOAD,
                format!("Request {method} is too large: {bytes} bytes, at most {max} are allowed"),
            ));
        }
        if canister != Principal::management_canister() {
            self.inspect(canister, sender, method, arg)?;
        }
        let usage = Usage { ingress_messages: 1, ingress_bytes: bytes + ENVELOPE_BYTES, ..Usage::default() };
        if let Some(canister) = self.canisters.get_mut(&canister) {
            canister.charge(&self.world, &usage);
        }
        self.next_call += 1;
        let call = self.next_call;
        self.ingress_usage.insert(call, usage);
        self.queue.push_back(Message::Request(Request {
            origin: Origin::Ingress(call),
            caller: sender,
            callee: canister,
            method: method.to_owned(),
            arg: arg.to_vec(),
            cycles: 0,
            deadline_ns: 0,
        }));
        Ok(call)
    }

    /// Asks the canister whether it accepts a user's call.
    fn inspect(&mut self, id: Principal, sender: Principal, method: &str, arg: &[u8]) -> Result<(), Reject> {
        let world = self.world.clone();
        let canister = self.canisters.get_mut(&id).ok_or_else(|| Reject::not_found(id))?;
        canister.check_accepts_calls()?;
        canister.check_balance(&world)?;
        if !canister.code().is_some_and(|code| code.exports(INSPECT_MESSAGE)) {
            return Ok(());
        }
        let input = Input { caller: sender, arg: arg.to_vec(), method: method.to_owned(), ..Input::default() };
        let job = Job { input, method, ..Job::system(&world, Mode::InspectMessage, INSPECT_MESSAGE) };
        let Some(outcome) = canister.execute(&world, job) else { return Err(Reject::no_module(id)) };
        let undone = canister.rollback();
        self.reports.push(outcome.report);
        match outcome.result.and(undone) {
            Err(trap) => Err(Reject::from_trap(id, &trap)),
            Ok(()) if outcome.effects.accepted_message => Ok(()),
            Ok(()) => Err(Reject::new(error_code::CANISTER_REJECTED_MESSAGE, "Canister rejected the message")),
        }
    }
}
