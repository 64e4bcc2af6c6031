//! Queries and composite queries: executed at once, on the committed state, and always undone.
//!
//! A composite query may call queries of other canisters. Its changes are visible to its own callbacks and are undone
//! when the whole call graph has ended.

use candid::Principal;

use super::super::call_context::{CallContext, Origin};
use super::super::canister::Canister;
use super::super::cycles::Usage;
use super::super::execution::{Answer, Closure, Input, OutgoingCall};
use super::super::message::Job;
use super::super::mode::Mode;
use super::super::module::MethodKind;
use super::super::reject::{Reject, error_code};
use super::super::report::CallReport;
use super::super::trap::Trap;
use super::deliver::{callback_job, method_export};
use super::{Certifier, Replica};

/// What all executions of one query call graph share.
struct Graph {
    /// Canisters that are being executed, outermost first.
    stack: Vec<Principal>,
    instructions_left: u64,
}

/// One canister's part of a composite query.
struct Part {
    canister: Principal,
    context: CallContext,
    answer: Option<Answer>,
    trap: Option<Trap>,
    calls: std::collections::VecDeque<OutgoingCall>,
}

impl Replica {
    /// Calls a query or composite query method as `sender`. Nothing changes.
    pub fn query(&mut self, canister: Principal, sender: Principal, method: &str, arg: &[u8]) -> CallReport {
        self.begin_report();
        let result = if canister == Principal::management_canister() {
            self.management_query(sender, method, arg)
        } else {
            let instructions_left = self.world.config.limits.instructions.query;
            let mut graph = Graph { stack: Vec::new(), instructions_left };
            self.evaluate(&mut graph, canister, sender, method, arg)
        };
        self.finish_report(result, Usage::default())
    }

    /// Evaluates a query and everything it calls, and undoes it.
    fn evaluate(
        &mut self,
        graph: &mut Graph,
        id: Principal,
        caller: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<Vec<u8>, Reject> {
        let canister = self.canisters.get(&id).ok_or_else(|| Reject::not_found(id))?;
        let mode = query_mode(canister, method)?;
        self.check_graph(graph, id)?;
        graph.stack.push(id);
        let mut part = Part {
            canister: id,
            context: CallContext::new(Origin::Task, caller, 0, 0),
            answer: None,
            trap: None,
            calls: std::collections::VecDeque::new(),
        };
        let input = Input { caller, arg: arg.to_vec(), ..Input::default() };
        let export = method_export(mode, method);
        let job = Job { input, method, ..Job::system(&self.world, mode, &export) };
        self.run_part(graph, &mut part, job);
        while let Some(call) = part.calls.pop_front() {
            self.make_call(graph, &mut part, call);
        }
        graph.stack.pop();
        let undone = self.canisters.get_mut(&id).map_or(Ok(()), Canister::rollback);
        match (part.answer, part.trap.or(undone.err())) {
            (Some(answer), _) => answer.map_err(Reject::by_canister),
            (None, Some(trap)) => Err(Reject::from_trap(id, &trap)),
            (None, None) => Err(Reject::did_not_reply(id)),
        }
    }

    fn check_graph(&self, graph: &Graph, id: Principal) -> Result<(), Reject> {
        let max = self.world.config.limits.messages.query_depth;
        if graph.stack.contains(&id) {
            let text = format!("the composite query calls canister {id}, which is part of it already");
            return Err(Reject::new(error_code::QUERY_CALL_GRAPH_LOOP, text));
        }
        if graph.stack.len() > max {
            let text = format!("Composite query call graph exceeded the maximum depth of {max}");
            return Err(Reject::new(error_code::QUERY_CALL_GRAPH_TOO_DEEP, text));
        }
        if graph.instructions_left == 0 {
            let text = "Composite query calls exceeded the instruction limit";
            return Err(Reject::new(error_code::QUERY_CALL_GRAPH_INSTRUCTIONS, text));
        }
        Ok(())
    }

    /// Executes one step of a query; the changes stay until the end of the graph. Answers whether it trapped.
    fn run_part(&mut self, graph: &mut Graph, part: &mut Part, job: Job<'_>) -> bool {
        let Some(canister) = self.canisters.get_mut(&part.canister) else { return true };
        let outermost = graph.stack.len() == 1 && asks_for_certificate(canister);
        let certificate = outermost.then(|| certificate(canister, self.certifier.as_ref()));
        let instructions = if job.mode == Mode::CompositeCleanup { job.instructions } else { graph.instructions_left };
        let Some(outcome) = canister.execute(&self.world, Job { instructions, certificate, ..job }) else {
            return true;
        };
        graph.instructions_left = graph.instructions_left.saturating_sub(outcome.report.instructions);
        part.context.instructions += outcome.report.instructions;
        self.reports.push(outcome.report);
        part.calls.extend(outcome.effects.calls);
        if let Some(answer) = outcome.effects.answer {
            part.answer = Some(answer);
        }
        let trapped = outcome.result.is_err();
        part.trap = outcome.result.err();
        trapped
    }

    /// Evaluates a call of a composite query and runs its callback; after a trap, the cleanup.
    fn make_call(&mut self, graph: &mut Graph, part: &mut Part, call: OutgoingCall) {
        graph.instructions_left =
            graph.instructions_left.saturating_sub(self.world.config.limits.instructions.composite_query_call);
        let result = self.evaluate(graph, call.callee, part.canister, &call.method, &call.arg);
        let (mode, closure) = match result {
            Ok(_) => (Mode::CompositeReplyCallback, call.on_reply),
            Err(_) => (Mode::CompositeRejectCallback, call.on_reject),
        };
        let (arg, reject) = match result {
            Ok(reply) => (reply, None),
            Err(reject) => (Vec::new(), Some((reject.code, reject.message))),
        };
        let input = Input {
            caller: part.context.caller,
            arg,
            reject,
            answered: part.answer.is_some(),
            earlier_instructions: part.context.instructions,
            ..Input::default()
        };
        let cleanup = Input { arg: Vec::new(), ..input.clone() };
        if self.run_callback(graph, part, mode, closure, input)
            && let Some(closure) = call.on_cleanup
        {
            let trap = part.trap.take();
            self.run_callback(graph, part, Mode::CompositeCleanup, closure, cleanup);
            part.trap = trap;
        }
    }

    fn run_callback(&mut self, graph: &mut Graph, part: &mut Part, mode: Mode, closure: Closure, input: Input) -> bool {
        let job = callback_job(&self.world, mode, closure, input);
        self.run_part(graph, part, job)
    }
}

/// How a method is queried, or why it cannot be.
fn query_mode(canister: &Canister, method: &str) -> Result<Mode, Reject> {
    canister.check_accepts_calls()?;
    match canister.method(method) {
        Some(MethodKind::Query) => Ok(Mode::NonReplicatedQuery),
        Some(MethodKind::CompositeQuery) => Ok(Mode::CompositeQuery),
        Some(MethodKind::Update) | None => Err(Reject::no_method(canister.id, "query", method)),
    }
}

/// Whether the module can see a certificate: making one may be expensive.
fn asks_for_certificate(canister: &Canister) -> bool {
    canister.code().is_some_and(|code| code.info().imports.iter().any(|name| name.starts_with("data_certificate_")))
}

/// What a query gets as certificate. Without somebody who signs it is the certified data behind a prefix that says so.
fn certificate(canister: &Canister, certifier: Option<&Certifier>) -> Vec<u8> {
    if let Some(certify) = certifier {
        return certify(canister);
    }
    [b"icllama shim, not signed: ".as_slice(), canister.certified_data()].concat()
}
