//! What can go wrong with a message, and how it is made to go wrong at the one that is next.

use std::rc::Rc;
use std::time::Duration;

use canister::api::*;
use end_to_end::{Chunk, Host, Icllama, Reject, ShimHost, full, principal};
use local_runner::shim::call_context::CallId;
use local_runner::shim::limits::Limits;
use local_runner::shim::queue::Message;
use local_runner::shim::report::MessageReport;

use super::script::{Answer, Op, question};
use super::trial::{How, Trial};

/// Error code of a message that used more instructions than it may.
const OUT_OF_INSTRUCTIONS: u32 = 522;
/// Error code of a message to a canister without cycles.
const OUT_OF_CYCLES: u32 = 207;
const PLENTY: u128 = 1_000_000_000_000_000;

/// What stable memory holds.
fn stable_pages(icllama: &mut Icllama<ShimHost>) -> Vec<(u64, &[u8])> {
    let id = icllama.canister;
    icllama.host.replica().canister(id).unwrap().stable().filled_pages().collect()
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The message is killed at this many thousandths of its instructions.
    Killed(u64),
    /// The canister is upgraded before the message is executed.
    Upgraded,
    /// The canister is upgraded after it, and the client never gets the answer.
    AnswerLost,
    /// The canister is stopped before it and started again ten minutes later.
    Stopped,
    /// The canister has no cycles for ten minutes.
    Frozen,
    /// The canister's call to itself takes longer than it waits for.
    Late,
    /// The call never arrives.
    Lost,
    /// The call arrives twice.
    Twice,
    /// The call and the next arrive the other way round.
    Reordered,
    /// The chunk is longer at both ends.
    Overlapping,
    /// A byte of the chunk is another one.
    Corrupted,
    /// Somebody else does the same, and other things, at the same time.
    SecondClient,
}

impl Fault {
    /// Heading of its column.
    pub fn name(self) -> String {
        match self {
            Self::Killed(0) => "killed at once".into(),
            Self::Killed(1000) => "killed at end".into(),
            Self::Killed(at) => format!("killed {at}‰"),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    /// Whether it happens to calls before they are sent.
    pub fn is_clients(self) -> bool {
        use Fault::*;
        matches!(self, Lost | Twice | Reordered | Overlapping | Corrupted | SecondClient)
    }

    /// Whether it can happen to the call of the present op.
    pub fn suits_call(self, trial: &Trial) -> bool {
        let chunk = matches!(trial.op(), Op::Chunk(_));
        match self {
            Self::Overlapping | Self::Corrupted => chunk,
            // Only chunks are sent without waiting for the answers of those before.
            Self::Reordered => chunk && matches!(trial.next_op(), Some(Op::Chunk(_) | Op::Commit)),
            _ => self.is_clients(),
        }
    }

    /// Whether it can happen to the message that is next.
    pub fn suits_message(self, call: Option<CallId>, message: &Message) -> bool {
        match self {
            Self::AnswerLost => call.is_some() && is_ingress(message),
            Self::SecondClient => call.is_none(),
            Self::Late => matches!(message, Message::Request(request) if request.deadline_ns != 0),
            _ => !self.is_clients(),
        }
    }
}

pub fn is_ingress(message: &Message) -> bool {
    use local_runner::shim::call_context::Origin;
    matches!(message, Message::Request(request) if matches!(request.origin, Origin::Ingress(_)))
}

impl Trial {
    /// Brings the fault about at the next message, and the present op to its end. `call` is the client's call on its way.
    pub fn suffer(&mut self, fault: Fault, call: Option<CallId>) -> How {
        match fault {
            Fault::Killed(permille) => self.kill(permille),
            Fault::Upgraded => self.icllama.upgrade(),
            Fault::AnswerLost => {
                self.wait(call.unwrap()).unwrap();
                self.icllama.upgrade();
                self.check_acknowledged();
                return self.perform(None).max(How::Repeated);
            }
            Fault::Stopped => {
                let (canister, sender) = (self.icllama.canister, self.icllama.sender);
                self.icllama.host.stop_at_once(canister, sender);
                self.pass_slowly();
                self.icllama.host.start(canister, sender);
            }
            Fault::Frozen => return self.freeze(call),
            Fault::SecondClient => self.second_client(),
            Fault::Late => self.icllama.host.advance_without_timers(Duration::from_secs(301)),
            other => panic!("{other:?} happens to calls"),
        }
        self.check_acknowledged();
        let first = call.map(|call| self.wait(call));
        self.icllama.host.replica().process();
        self.perform(first)
    }

    fn kill(&mut self, permille: u64) {
        let mut undisturbed = self.fork();
        let needed = undisturbed.step(u64::MAX).0.instructions;
        // The last instructions may be counted when they were executed.
        let mut limit = (needed * permille / 1000).clamp(1, needed - 1);
        let (mut killed, cleaned_up) = loop {
            let mut trial = self.fork();
            let (report, cleaned_up) = trial.step(limit);
            match report.trap {
                Some(trap) => {
                    assert_eq!(trap.error_code(), OUT_OF_INSTRUCTIONS);
                    break (trial, cleaned_up);
                }
                None => limit -= needed / 100,
            }
        };
        // Only what cleans up after a callback that was killed may change anything.
        let [before, after] = [&mut *self, &mut killed].map(|trial| stable_pages(&mut trial.icllama));
        assert!(before == after || cleaned_up, "killed after {limit} of {needed} instructions");
        *self = killed;
    }

    /// Executes the next message under a limit; also whether something had to be cleaned up after it.
    fn step(&mut self, limit: u64) -> (MessageReport, bool) {
        self.icllama.host.set_limits(|limits| limits.instructions.update = limit.min(limits.instructions.update));
        let replica = self.icllama.host.replica();
        replica.take_reports();
        replica.step();
        let mut reports = replica.take_reports().into_iter();
        self.icllama.host.set_limits(|limits| *limits = Limits::default());
        (reports.next().unwrap(), reports.next().is_some())
    }

    fn freeze(&mut self, call: Option<CallId>) -> How {
        let (canister, is_next) =
            (self.icllama.canister, self.icllama.host.replica().next_message().is_some_and(is_ingress));
        self.icllama.host.replica().set_balance(canister, 0);
        let first = call.map(|call| self.wait(call));
        if is_next {
            assert!(matches!(&first, Some(Err(Reject { error_code: OUT_OF_CYCLES, .. }))), "{first:?}");
        }
        self.pass_slowly();
        self.icllama.host.replica().set_balance(canister, PLENTY);
        self.check_acknowledged();
        self.perform(first)
    }

    fn pass_slowly(&mut self) {
        (0..10).for_each(|_| self.icllama.host.advance(Duration::from_secs(60)));
    }

    /// No byte whose arrival was acknowledged is missing.
    fn check_acknowledged(&mut self) {
        let upload = self.icllama.model_status().upload;
        let received = upload.map_or(self.client.acknowledged, |upload| upload.received_bytes);
        assert!(received >= self.client.acknowledged, "{received} of {}", self.client.acknowledged);
    }

    /// Brings the fault about with the call of the present op, and that to its end.
    pub fn suffer_before(&mut self, fault: Fault) -> How {
        match fault {
            Fault::Lost => {
                self.pass(10);
                self.perform(None).max(How::Repeated)
            }
            Fault::Twice => {
                let (method, arg) = self.client.call(self.op()).unwrap();
                let first = self.send(method, &arg);
                // The second is answered too, with what it did or why not.
                self.send(method, &arg).unwrap();
                self.perform(Some(first))
            }
            Fault::Reordered => {
                let (method, arg) = self.client.call(self.next_op().unwrap()).unwrap();
                self.send(method, &arg).unwrap();
                self.perform(None)
            }
            Fault::Overlapping => {
                let chunk = self.own_chunk();
                let (from, end) = (chunk.offset.saturating_sub(1000), chunk.offset + chunk.bytes.len() + 1000);
                let file = self.client.plan.file.clone();
                let bytes = &file[from..end.min(file.len())];
                self.send_chunk(from, bytes)
            }
            Fault::Corrupted => {
                let chunk = self.own_chunk();
                let (offset, mut bytes) = (chunk.offset, chunk.bytes.to_vec());
                bytes[77] ^= 1;
                self.send_chunk(offset, &bytes);
                // It is found out when the hash is computed.
                while self.op() != Op::Verified {
                    self.at += 1;
                    self.perform(None);
                }
                How::Repeated
            }
            Fault::SecondClient => {
                self.second_client();
                self.perform(None)
            }
            other => panic!("{other:?} happens to messages"),
        }
    }

    /// Another operator uploads the same file, tries another one, and has a session of its own.
    fn second_client(&mut self) {
        let (plan, announcement) = (Rc::clone(&self.client.plan), self.client.announcement());
        let other = UploadBeginArg { name: "other".into(), total_bytes: 10, sha256: vec![0; 32] };
        self.icllama.as_sender(principal(2), |icllama| {
            let status = icllama.model_status();
            if status.upload.is_some_and(|upload| upload.state == UploadState::Receiving) {
                let upload_id = icllama.upload_begin(announcement).unwrap().upload_id;
                icllama.send(upload_id, &[plan.chunk(2)]);
                let refused = icllama.upload_begin(other);
                assert!(matches!(refused, Err(Error::UploadInProgress { .. })), "{refused:?}");
                let committed = icllama.upload_commit(UploadCommitArg { upload_id, max_instructions: None });
                assert!(matches!(committed, Ok(_) | Err(Error::UploadIncomplete { .. })), "{committed:?}");
            } else if let Ok(UploadBeginOk { upload_id, .. }) = icllama.upload_begin(other) {
                icllama.send(upload_id, &[Chunk { offset: 3, bytes: &[1, 2, 3] }]);
                icllama.upload_abort(UploadIdArg { upload_id }).unwrap();
            }
            match icllama.session_create(question()) {
                Ok(SessionCreateOk { session_id, .. }) => {
                    icllama.finish(session_id, &mut full);
                    assert_eq!(plan.expected()[0], Answer::Session(icllama.generation(session_id)));
                }
                Err(Error::ModelMissing) if status.serving.is_none() => {}
                // Also where the model of `status` answered: a step that was queued before the call may have let it go.
                Err(Error::ModelLoading { .. }) => {
                    let load = icllama.model_status().load;
                    assert!(matches!(load, LoadState::Loading { .. }), "{load:?}");
                }
                Err(refused) => panic!("{refused:?}"),
            }
        });
    }

    fn own_chunk(&self) -> Chunk<'_> {
        let Op::Chunk(index) = self.op() else { panic!("{:?} is no chunk", self.op()) };
        self.client.plan.chunk(index)
    }

    fn send_chunk(&mut self, offset: usize, bytes: &[u8]) -> How {
        let arg = self.client.chunk(Chunk { offset, bytes });
        let first = self.send("upload_chunk", &arg);
        self.perform(Some(first))
    }
}
