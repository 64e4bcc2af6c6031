//! A canister with its client in the middle of a script: going on to the end, whatever happened.

use std::time::Duration;

use canister::api::*;
use end_to_end::{CallKind, Host, Icllama, Reject, ShimHost};
use local_runner::shim::call_context::CallId;

use super::script::{Answer, Client, Op, Taken, is_over};

/// How an op came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// As if nothing had happened.
    AtOnce,
    /// The canister needed time, and nobody's help.
    ByItself,
    /// The client made its last call again.
    Repeated,
}

/// Time in which the canister finds out that a timer was lost, and more.
const RECOVERY: u64 = 150;
/// Time in which whatever is going on ends if nothing goes wrong.
const SOON: u64 = 45;
/// Calls that an op takes at most.
const PATIENCE: usize = 400;

/// A canister and its client.
pub struct Trial {
    pub icllama: Icllama<ShimHost>,
    pub client: Client,
    /// Where the script is.
    pub at: usize,
}

impl Trial {
    /// The same in the same state, to go on otherwise.
    pub fn fork(&mut self) -> Self {
        let Self { icllama: Icllama { host, canister, sender }, client, at } = self;
        let icllama = Icllama { host: Box::new(host.fork()), canister: *canister, sender: *sender };
        Self { icllama, client: client.clone(), at: *at }
    }

    pub fn op(&self) -> Op {
        self.client.plan.ops[self.at]
    }

    /// The op after this one.
    pub fn next_op(&self) -> Option<Op> {
        self.client.plan.ops.get(self.at + 1).copied()
    }

    /// Sends the call of `op` without executing it.
    pub fn submit(&mut self, op: Op) -> Option<CallId> {
        let (method, arg) = self.client.call(op)?;
        let Icllama { host, canister, sender } = &mut self.icllama;
        host.replica().submit(*canister, *sender, method, &arg).ok()
    }

    /// Makes a call.
    pub fn send(&mut self, method: &str, arg: &[u8]) -> Result<Vec<u8>, Reject> {
        let Icllama { host, canister, sender } = &mut self.icllama;
        host.call(CallKind::Update, *canister, *sender, method, arg)
    }

    /// The answer to a call on its way.
    pub fn wait(&mut self, call: CallId) -> Result<Vec<u8>, Reject> {
        let result = self.icllama.host.replica().wait(call).result;
        result.map_err(|reject| Reject { error_code: reject.error_code, message: reject.message })
    }

    /// Lets time pass, round by round; where nothing happens rounds get long.
    pub fn pass(&mut self, seconds: u64) {
        let mut left = seconds;
        while left > 0 {
            let step = if self.round(1) { 1 } else { 1 + self.skip(left.min(10) - 1) };
            left -= step;
        }
    }

    /// Lets seconds pass and what is due happen; whether anything was.
    fn round(&mut self, seconds: u64) -> bool {
        let replica = self.icllama.host.replica();
        replica.advance_time(seconds * 1_000_000_000);
        !replica.run_timers().is_empty()
    }

    fn skip(&mut self, seconds: u64) -> u64 {
        self.icllama.host.advance_without_timers(Duration::from_secs(seconds));
        seconds
    }

    /// Brings the present op to its end, repeating its call when that is refused. `first` is the answer of the first call
    /// if that was made already.
    pub fn perform(&mut self, first: Option<Result<Vec<u8>, Reject>>) -> How {
        let op = self.op();
        let how = if self.client.call(op).is_some() { self.call(op, first) } else { self.wait_for(op) };
        self.note_answer(op);
        how
    }

    fn call(&mut self, op: Op, mut first: Option<Result<Vec<u8>, Reject>>) -> How {
        let mut how = How::AtOnce;
        for attempt in 0..PATIENCE {
            let result = first.take().unwrap_or_else(|| {
                let (method, arg) = self.client.call(op).unwrap();
                self.send(method, &arg)
            });
            match self.client.take(op, how == How::Repeated, result) {
                Taken::Done => return how,
                Taken::Again => {}
                Taken::Refused(reason) => {
                    how = How::Repeated;
                    self.after_refusal(op);
                    // First soon, then after so long that a lost timer has been noticed.
                    self.pass(if attempt < 20 { 2 } else { RECOVERY });
                    assert!(attempt < 25, "{op:?} is refused for ever: {reason}");
                }
            }
        }
        panic!("{op:?} does not end");
    }

    fn wait_for(&mut self, op: Op) -> How {
        for how in [How::AtOnce, How::Repeated] {
            let mut waited = 0;
            // Whatever is over was done by a message.
            let mut happened = true;
            while waited < RECOVERY {
                if happened && self.is_over(op) {
                    return how.max(if waited > SOON { How::ByItself } else { How::AtOnce });
                }
                happened = self.round(1);
                waited += 1 + if happened { 0 } else { self.skip(4) };
            }
            if how == How::AtOnce {
                self.repeat_last_call();
            }
        }
        panic!("{op:?} does not come: {:?}", self.icllama.model_status());
    }

    /// Nothing happens by itself: the last call again.
    fn repeat_last_call(&mut self) {
        let mut calls = (0..self.at).filter(|at| self.client.call(self.client.plan.ops[*at]).is_some());
        let at = std::mem::replace(&mut self.at, calls.next_back().unwrap());
        self.perform(None);
        self.at = at;
    }

    fn is_over(&mut self, op: Op) -> bool {
        if op == Op::Verified && self.has_mismatch() && !self.client.plan.is_spoilt() {
            // Something was damaged on the way: everything again.
            self.send_again();
            return false;
        }
        is_over(&mut self.icllama, &self.client, op)
    }

    fn after_refusal(&mut self, op: Op) {
        if op == Op::Commit && self.has_mismatch() && !self.client.plan.is_spoilt() {
            self.send_again();
        }
    }

    fn has_mismatch(&mut self) -> bool {
        let status = self.icllama.upload_status(UploadStatusArg::default());
        status.is_ok_and(|status| status.state == UploadState::HashMismatch)
    }

    /// Sends all chunks and commits.
    fn send_again(&mut self) {
        for index in 0..3 {
            let (method, arg) = self.client.call(Op::Chunk(index)).unwrap();
            self.send(method, &arg).unwrap();
        }
        let (method, arg) = self.client.call(Op::Commit).unwrap();
        self.send(method, &arg).unwrap();
    }

    /// Keeps what came of an op that computes.
    pub fn note_answer(&mut self, op: Op) {
        if matches!(op, Op::Advance | Op::Finished) {
            let generation = self.icllama.generation(self.client.session_id);
            self.client.answers.push(Answer::Session(generation));
        }
    }

    /// What comes of the whole script undisturbed.
    pub fn whole(mut self) -> Vec<Answer> {
        assert_eq!(self.perform(None), How::AtOnce);
        self.finish().client.answers
    }

    /// Goes on to the end of the script in few calls; every one of them is answered as it should be.
    pub fn finish(mut self) -> Self {
        let fast = ConfigUpdate { max_instructions: Some(36_000_000_000), ..ConfigUpdate::default() };
        self.icllama.config_set(fast).unwrap();
        if self.client.plan.ops[..=self.at].contains(&Op::Loaded) {
            // An upgrade leaves it to be loaded again.
            self.wait_for(Op::Loaded);
        }
        while self.at + 1 < self.client.plan.ops.len() {
            self.at += 1;
            let (op, how) = (self.op(), self.perform(None));
            assert_eq!(how, How::AtOnce, "{op:?} after the fault");
        }
        self
    }
}
