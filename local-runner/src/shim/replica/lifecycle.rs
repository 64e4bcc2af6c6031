//! Stopping, starting, emptying and deleting canisters, and calls that are given up.

use candid::Principal;

use super::super::call_context::Origin;
use super::super::canister::{Canister, Status, StopRequest};
use super::super::history::{Author, Change};
use super::super::queue::{Message, Response};
use super::super::reject::{Reject, error_code};
use super::super::stable::StableMemory;
use super::Replica;

/// How long a `stop_canister` call waits.
const STOP_TIMEOUT_NS: u64 = 5 * 60 * 1_000_000_000;

/// The answer of management methods that return nothing.
const NOTHING: &[u8] = b"DIDL\0\0";

impl Canister {
    /// Whether `canister_on_low_wasm_memory` has to run now: once whenever the free heap falls below the threshold.
    pub(super) fn low_memory_hook_due(&mut self) -> bool {
        let settings = &self.settings;
        let limit = if settings.wasm_memory_limit == 0 { 1 << 32 } else { settings.wasm_memory_limit };
        let low = limit.saturating_sub(self.heap_bytes()) < settings.wasm_memory_threshold;
        let due = low && !self.low_memory_reported;
        self.low_memory_reported = low;
        due && self.code.as_ref().is_some_and(|code| code.exports("canister_on_low_wasm_memory"))
    }
}

impl Replica {
    /// Makes a canister stop; `origin` is answered when it has finished what it began.
    pub(crate) fn stop_canister(&mut self, id: Principal, origin: Origin, cycles: u128) {
        let deadline_ns = self.world.time_ns.saturating_add(STOP_TIMEOUT_NS);
        let Some(canister) = self.canisters.get_mut(&id) else {
            return self.respond(origin, Err(Reject::not_found(id)), cycles);
        };
        let request = StopRequest { origin, cycles, deadline_ns };
        match &mut canister.status {
            Status::Stopping(waiting) => waiting.push(request),
            Status::Running => canister.status = Status::Stopping(vec![request]),
            Status::Stopped => return self.respond(origin, Ok(NOTHING.to_vec()), cycles),
        }
        canister.version += 1;
        self.finish_stopping(id);
    }

    /// Stops a stopping canister that has nothing left to do, and answers those who wait for it.
    pub(super) fn finish_stopping(&mut self, id: Principal) {
        let Some(canister) = self.canisters.get_mut(&id) else { return };
        if !canister.calls.is_empty() || !matches!(canister.status, Status::Stopping(_)) {
            return;
        }
        let Status::Stopping(waiting) = std::mem::replace(&mut canister.status, Status::Stopped) else { return };
        for request in waiting {
            self.respond(request.origin, Ok(NOTHING.to_vec()), request.cycles);
        }
    }

    /// Makes a canister accept calls again; `stop_canister` calls that still wait are rejected.
    pub(crate) fn start_canister(&mut self, id: Principal) {
        let Some(canister) = self.canisters.get_mut(&id) else { return };
        let before = std::mem::replace(&mut canister.status, Status::Running);
        canister.version += 1;
        let Status::Stopping(waiting) = before else { return };
        for request in waiting {
            let text = format!("Canister {id}'s stop request was cancelled");
            let reject = Reject::new(error_code::CANISTER_STOPPING_CANCELLED, text);
            self.respond(request.origin, Err(reject), request.cycles);
        }
    }

    /// Rejects `stop_canister` calls that waited too long; the canister goes on stopping.
    pub(super) fn expire_stop_requests(&mut self) {
        let now_ns = self.world.time_ns;
        let mut expired = Vec::new();
        for canister in self.canisters.values_mut() {
            if let Status::Stopping(waiting) = &mut canister.status {
                expired.extend(waiting.extract_if(.., |request| request.deadline_ns <= now_ns));
            }
        }
        for request in expired {
            let reject = Reject::new(error_code::STOP_CANISTER_TIMEOUT, "Stop canister request timed out");
            self.respond(request.origin, Err(reject), request.cycles);
        }
    }

    /// Rejects all calls that are queued and all that wait for a canister to stop; answers that are on their way stay.
    ///
    /// For an end of the replica that leaves no canister waiting for an answer that nobody will give.
    pub fn reject_open_calls(&mut self) {
        let reject = || Reject::new(error_code::SHUTTING_DOWN, "the replica is being shut down");
        let queued = std::mem::take(&mut self.queue);
        for message in queued {
            match message {
                Message::Request(request) => self.respond(request.origin, Err(reject()), request.cycles),
                Message::Response(_) => self.queue.push_back(message),
                Message::Task { .. } => {}
            }
        }
        let mut waiting = Vec::new();
        for canister in self.canisters.values_mut() {
            if let Status::Stopping(requests) = &mut canister.status {
                waiting.append(requests);
            }
        }
        for request in waiting {
            self.respond(request.origin, Err(reject()), request.cycles);
        }
    }

    /// Gives up best-effort calls whose deadline has passed; cycles sent with them are lost.
    pub(super) fn expire_calls(&mut self) {
        let now_ns = self.world.time_ns;
        for canister in self.canisters.values() {
            for callback in canister.calls.expired(now_ns) {
                let result = Err(Reject::new(error_code::DEADLINE_EXPIRED, "Call deadline has expired."));
                let canister = canister.id;
                self.queue.push_back(Message::Response(Response { canister, callback, result, refund: 0 }));
            }
        }
    }

    /// Removes module, memories, log and open calls; unanswered calls are rejected.
    pub(crate) fn uninstall(&mut self, id: Principal, author: Author) {
        let time_ns = self.world.time_ns;
        let Some(canister) = self.canisters.get_mut(&id) else { return };
        canister.code = None;
        canister.stable = StableMemory::default();
        canister.certified_data.clear();
        canister.chunks.clear();
        canister.timer_ns = 0;
        canister.log.clear();
        canister.version += 1;
        canister.record(time_ns, author, Change::Uninstalled);
        for context in canister.calls.abandon() {
            let reject = Reject::by_canister("Canister has been uninstalled");
            self.respond(context.origin, Err(reject), context.cycles_available);
        }
        self.finish_stopping(id);
    }

    /// Deletes a stopped canister; its cycles are lost.
    ///
    /// # Errors
    /// If it is not stopped.
    pub(crate) fn delete_canister(&mut self, id: Principal) -> Result<(), Reject> {
        let canister = self.canisters.get(&id).ok_or_else(|| Reject::not_found(id))?;
        if canister.status != Status::Stopped {
            let text = format!("Canister {id} must be stopped before it is deleted.");
            return Err(Reject::new(error_code::CANISTER_NOT_STOPPED, text));
        }
        self.canisters.remove(&id);
        Ok(())
    }
}
