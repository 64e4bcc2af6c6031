//! Calls that a canister has not answered yet, and calls it made that were not answered yet.
//!
//! A call context lives from the first execution of a call until it is answered and none of the calls it made is open.

use std::collections::BTreeMap;

use candid::Principal;

use super::execution::Closure;

/// Number of a call context within its canister.
pub type ContextId = u64;
/// Number of a callback within its canister.
pub type CallbackId = u64;
/// Number of an ingress call within the replica.
pub type CallId = u64;

/// Who waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A user.
    Ingress(CallId),
    /// A canister's callback.
    Canister {
        /// The calling canister.
        canister: Principal,
        /// Its callback.
        callback: CallbackId,
    },
    /// Nobody: a heartbeat or timer.
    Task,
}

/// A call that a canister is working on.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// Who waits.
    pub origin: Origin,
    /// Who called.
    pub caller: Principal,
    /// Nothing (more) can be answered.
    pub answered: bool,
    /// Cycles of the call that were not accepted yet.
    pub cycles_available: u128,
    /// Deadline of a best-effort call in nanoseconds; 0 if none.
    pub deadline_ns: u64,
    /// Instructions of all executions so far.
    pub instructions: u64,
    /// Calls made for it that are not answered.
    pub open_calls: usize,
}

impl CallContext {
    /// A context nobody has worked on yet.
    pub fn new(origin: Origin, caller: Principal, cycles: u128, deadline_ns: u64) -> Self {
        Self {
            origin,
            caller,
            answered: origin == Origin::Task,
            cycles_available: cycles,
            deadline_ns,
            instructions: 0,
            open_calls: 0,
        }
    }
}

/// What to do when the answer to a call arrives.
#[derive(Debug, Clone)]
pub struct Callback {
    /// The context that made the call.
    pub context: ContextId,
    /// Canister that was called.
    pub callee: Principal,
    /// Runs for a reply.
    pub on_reply: Closure,
    /// Runs for a reject.
    pub on_reject: Closure,
    /// Runs if the callback traps.
    pub on_cleanup: Option<Closure>,
    /// Cycles that went with the call.
    pub cycles: u128,
    /// Deadline of a best-effort call in nanoseconds; 0 if none.
    pub deadline_ns: u64,
}

/// Open calls of one canister.
#[derive(Debug, Clone, Default)]
pub struct OpenCalls {
    contexts: BTreeMap<ContextId, CallContext>,
    callbacks: BTreeMap<CallbackId, Callback>,
    next: u64,
}

impl OpenCalls {
    /// Whether nothing is open.
    pub fn is_empty(&self) -> bool {
        self.contexts.is_empty()
    }

    /// Adds a context.
    pub fn open(&mut self, context: CallContext) -> ContextId {
        self.next += 1;
        self.contexts.insert(self.next, context);
        self.next
    }

    /// A context that is open.
    pub fn context(&self, id: ContextId) -> Option<&CallContext> {
        self.contexts.get(&id)
    }

    /// A context that is open.
    pub fn context_mut(&mut self, id: ContextId) -> Option<&mut CallContext> {
        self.contexts.get_mut(&id)
    }

    /// Removes the context if none of its calls is open.
    pub fn close_if_done(&mut self, id: ContextId) -> Option<CallContext> {
        if self.contexts.get(&id)?.open_calls > 0 {
            return None;
        }
        self.contexts.remove(&id)
    }

    /// Registers the callbacks of a call that is being made.
    pub fn register(&mut self, callback: Callback) -> CallbackId {
        self.next += 1;
        if let Some(context) = self.contexts.get_mut(&callback.context) {
            context.open_calls += 1;
        }
        self.callbacks.insert(self.next, callback);
        self.next
    }

    /// Takes a callback whose answer arrived; none if it was given up.
    pub fn take(&mut self, id: CallbackId) -> Option<Callback> {
        let callback = self.callbacks.remove(&id)?;
        if let Some(context) = self.contexts.get_mut(&callback.context) {
            context.open_calls = context.open_calls.saturating_sub(1);
        }
        Some(callback)
    }

    /// Unanswered calls to each canister.
    pub fn open_by_callee(&self) -> BTreeMap<Principal, usize> {
        let mut counts = BTreeMap::new();
        for callback in self.callbacks.values() {
            *counts.entry(callback.callee).or_default() += 1;
        }
        counts
    }

    /// Best-effort calls whose deadline has passed, in the order they were made.
    pub fn expired(&self, now_ns: u64) -> Vec<CallbackId> {
        let expired = |callback: &Callback| callback.deadline_ns != 0 && callback.deadline_ns <= now_ns;
        self.callbacks.iter().filter(|(_, callback)| expired(callback)).map(|(id, _)| *id).collect()
    }

    /// Forgets everything; answers the contexts that nobody answered.
    pub fn abandon(&mut self) -> Vec<CallContext> {
        self.callbacks.clear();
        std::mem::take(&mut self.contexts).into_values().filter(|context| !context.answered).collect()
    }
}
