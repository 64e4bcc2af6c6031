//! Delivers one message to one canister and passes on what comes of it.

use candid::Principal;

use super::super::call_context::{CallContext, Callback, ContextId, Origin};
use super::super::canister::Canister;
use super::super::engine::Entry;
use super::super::execution::{Answer, Closure, Input, OutgoingCall};
use super::super::message::{Job, Outcome, World};
use super::super::mode::Mode;
use super::super::module::MethodKind;
use super::super::queue::{Message, Request, Response, task_export};
use super::super::reject::{Reject, error_code};
use super::super::trap::Trap;
use super::Replica;

impl Replica {
    /// Executes a call, or rejects it if the canister cannot be called.
    pub(super) fn deliver_request(&mut self, request: Request) {
        if request.callee == Principal::management_canister() {
            return self.management_call(request);
        }
        let world = self.world.clone();
        let Some(canister) = self.canisters.get_mut(&request.callee) else {
            return self.respond(request.origin, Err(Reject::not_found(request.callee)), request.cycles);
        };
        let mode = match check_request(canister, &world, &request.method) {
            Ok(mode) => mode,
            Err(reject) => return self.respond(request.origin, Err(reject), request.cycles),
        };
        let Request { origin, caller, callee, method, arg, cycles, deadline_ns } = request;
        let context = canister.calls.open(CallContext::new(origin, caller, cycles, deadline_ns));
        let export = method_export(mode, &method);
        let input = Input { caller, arg, cycles_available: cycles, deadline_ns, ..Input::default() };
        let job = Job { input, method: &method, ..Job::system(&world, mode, &export) };
        let outcome = canister.execute(&world, job);
        let trap = outcome.and_then(|outcome| self.settle(callee, context, outcome));
        self.close(callee, context, trap);
    }

    /// Runs the callback for an answer; after a trap, the cleanup.
    pub(super) fn deliver_response(&mut self, response: Response) {
        let world = self.world.clone();
        let id = response.canister;
        let Some(canister) = self.canisters.get_mut(&id) else { return };
        canister.balance = canister.balance.saturating_add(response.refund);
        // Nobody waits any more after an uninstall or a passed deadline.
        let Some(callback) = canister.calls.take(response.callback) else { return };
        let Some(context) = canister.calls.context(callback.context).cloned() else { return };
        let (mode, closure) = match response.result {
            Ok(_) => (Mode::ReplyCallback, callback.on_reply),
            Err(_) => (Mode::RejectCallback, callback.on_reject),
        };
        let input = callback_input(&context, response.result, response.refund);
        let cleanup_input = Input { arg: Vec::new(), ..input.clone() };
        let outcome = canister.execute(&world, callback_job(&world, mode, closure, input));
        let trap = outcome.and_then(|outcome| self.settle(id, callback.context, outcome));
        if trap.is_some() {
            self.clean_up(&world, id, &callback, cleanup_input);
        }
        self.close(id, callback.context, trap);
    }

    /// Runs the cleanup of a callback that trapped; if it traps too, nothing more happens.
    fn clean_up(&mut self, world: &World, id: Principal, callback: &Callback, input: Input) {
        let (Some(canister), Some(closure)) = (self.canisters.get_mut(&id), callback.on_cleanup) else { return };
        if let Some(outcome) = canister.execute(world, callback_job(world, Mode::Cleanup, closure, input)) {
            self.settle(id, callback.context, outcome);
        }
    }

    /// Runs a heartbeat, timer or low-memory hook; skipped if the canister cannot run it any more.
    pub(super) fn deliver_task(&mut self, id: Principal, mode: Mode) {
        let world = self.world.clone();
        let Some(canister) = self.canisters.get_mut(&id) else { return };
        if canister.check_accepts_calls().is_err() || canister.check_balance(&world).is_err() {
            return;
        }
        let context = CallContext::new(Origin::Task, Principal::management_canister(), 0, 0);
        let context = canister.calls.open(context);
        let outcome = canister.execute(&world, Job::system(&world, mode, task_export(mode)));
        let trap = outcome.and_then(|outcome| self.settle(id, context, outcome));
        self.close(id, context, trap);
    }

    /// Commits a successful execution and passes on its calls and answer; answers why it failed otherwise.
    fn settle(&mut self, id: Principal, context_id: ContextId, outcome: Outcome) -> Option<Trap> {
        let Outcome { result, effects, balance, report } = outcome;
        let (mode, usage, instructions) = (report.mode, report.usage, report.instructions);
        self.reports.push(report);
        let canister = self.canisters.get_mut(&id)?;
        if let Some(context) = canister.calls.context_mut(context_id) {
            context.instructions = context.instructions.saturating_add(instructions);
        }
        let kept = result.and_then(|()| if mode.discards_changes() { canister.rollback() } else { canister.commit() });
        if let Err(trap) = kept {
            // A trap is undone already; this is for a state that could not be committed, and there is nothing to do
            // about a second failure of the system.
            canister.rollback().ok();
            canister.charge(&self.world, &usage);
            return Some(trap);
        }
        canister.apply(&effects, balance);
        canister.version += 1;
        canister.charge(&self.world, &usage);
        if let Some(context) = canister.calls.context_mut(context_id) {
            context.cycles_available = context.cycles_available.saturating_sub(effects.cycles_accepted);
        }
        for call in effects.calls {
            let request = register(canister, context_id, call, self.world.time_ns);
            self.queue.push_back(Message::Request(request));
        }
        if canister.low_memory_hook_due() {
            self.queue.push_back(Message::Task { canister: id, mode: Mode::LowWasmMemory });
        }
        if let Some(answer) = effects.answer {
            self.answer_context(id, context_id, answer);
        }
        None
    }

    /// Sends a canister's answer to whoever waits for it, with the cycles that are left.
    fn answer_context(&mut self, id: Principal, context_id: ContextId, answer: Answer) {
        let Some(context) = self.canisters.get_mut(&id).and_then(|canister| canister.calls.context_mut(context_id))
        else {
            return;
        };
        context.answered = true;
        let refund = std::mem::take(&mut context.cycles_available);
        let origin = context.origin;
        self.respond(origin, answer.map_err(Reject::by_canister), refund);
    }

    /// Ends a context that has nothing left to wait for; rejects the call if nobody answered it.
    fn close(&mut self, id: Principal, context_id: ContextId, trap: Option<Trap>) {
        let Some(canister) = self.canisters.get_mut(&id) else { return };
        let Some(context) = canister.calls.close_if_done(context_id) else { return };
        if !context.answered {
            let reject = trap.map_or_else(|| Reject::did_not_reply(id), |trap| Reject::from_trap(id, &trap));
            self.respond(context.origin, Err(reject), context.cycles_available);
        }
        self.finish_stopping(id);
    }

    /// Hands an answer to a user or queues it for a canister.
    pub(crate) fn respond(&mut self, origin: Origin, result: Result<Vec<u8>, Reject>, refund: u128) {
        let limit = self.world.config.limits.messages.reject_bytes;
        let result = result.map_err(|reject| Reject { message: cut(reject.message, limit), ..reject });
        match origin {
            Origin::Ingress(call) => {
                self.answers.insert(call, result);
            }
            Origin::Canister { canister, callback } => {
                self.queue.push_back(Message::Response(Response { canister, callback, result, refund }));
            }
            Origin::Task => {}
        }
    }
}

/// How a method is entered, or why it cannot be called.
fn check_request(canister: &Canister, world: &World, method: &str) -> Result<Mode, Reject> {
    canister.check_accepts_calls()?;
    canister.check_balance(world)?;
    match canister.method(method) {
        Some(MethodKind::Update) => Ok(Mode::Update),
        Some(MethodKind::Query) => Ok(Mode::ReplicatedQuery),
        Some(MethodKind::CompositeQuery) => Err(Reject::from_canister(
            canister.id,
            error_code::COMPOSITE_QUERY_IN_REPLICATED_MODE,
            "Composite query cannot be called in replicated mode",
        )),
        None => Err(Reject::no_method(canister.id, "update", method)),
    }
}

/// The export behind a method that is executed in this mode.
pub(super) fn method_export(mode: Mode, method: &str) -> String {
    let kind = match mode {
        Mode::ReplicatedQuery | Mode::NonReplicatedQuery => "query",
        Mode::CompositeQuery => "composite_query",
        _ => "update",
    };
    format!("canister_{kind} {method}")
}

/// A callback of the table.
pub(super) fn callback_job(world: &World, mode: Mode, closure: Closure, input: Input) -> Job<'static> {
    let entry = Entry::Callback { index: closure.function, env: closure.environment };
    Job { entry, input, ..Job::system(world, mode, "") }
}

/// What a callback sees of the answer and of the call it works for.
fn callback_input(context: &CallContext, result: Result<Vec<u8>, Reject>, refund: u128) -> Input {
    let (arg, reject) = match result {
        Ok(reply) => (reply, None),
        Err(reject) => (Vec::new(), Some((reject.code, reject.message))),
    };
    Input {
        caller: context.caller,
        arg,
        reject,
        method: String::new(),
        cycles_available: context.cycles_available,
        cycles_refunded: refund,
        deadline_ns: context.deadline_ns,
        answered: context.answered,
        earlier_instructions: context.instructions,
    }
}

/// Opens a call that a canister makes.
fn register(canister: &mut Canister, context: ContextId, call: OutgoingCall, now_ns: u64) -> Request {
    const SECOND_NS: u64 = 1_000_000_000;
    let deadline_ns = call.timeout_seconds.map_or(0, |seconds| now_ns.saturating_add(seconds * SECOND_NS));
    let callback = canister.calls.register(Callback {
        context,
        callee: call.callee,
        on_reply: call.on_reply,
        on_reject: call.on_reject,
        on_cleanup: call.on_cleanup,
        cycles: call.cycles,
        deadline_ns,
    });
    Request {
        origin: Origin::Canister { canister: canister.id, callback },
        caller: canister.id,
        callee: call.callee,
        method: call.method,
        arg: call.arg,
        cycles: call.cycles,
        deadline_ns,
    }
}

/// Shortens a text to at most `limit` bytes without splitting a character.
fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
    }
    text
}
