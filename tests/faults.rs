//! The fault matrix: the messages of the life of a model — upload, verification, load, generation — meet every fault that can
//! befall them, each in a canister of its own. Afterwards the canister finishes by itself, or when the client makes its last
//! call again, with the bits of an undisturbed run.
//!
//! By default one message of each kind meets each fault. `ICLLAMA_FAULTS=all cargo test -p end-to-end faults:: --
//! --nocapture` has all of them meet it, kills them at more places, and prints the matrix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use std::rc::Rc;

use canister::api::*;
use end_to_end::{Icllama, Native, ShimHost, principal, tiny};
use local_runner::shim::call_context::{CallId, Origin};
use local_runner::shim::queue::Message;
use model_core::fixtures::TinyLlama;
use model_core::kernels::Kernel;
use sha2::{Digest, Sha256};

mod fault;
mod matrix;
mod sanity;
mod script;
mod trial;

use fault::Fault;
use matrix::Matrix;
use script::{Answer, Client, Op, Plan, Taken, is_over, question};
use trial::Trial;

/// Settings under which everything takes several messages.
fn small_steps() -> ConfigUpdate {
    ConfigUpdate { max_instructions: Some(1_500_000), operators: Some(vec![principal(2)]), ..ConfigUpdate::default() }
}

/// A model whose file has 700,000 bytes, most of them behind the last tensor: three steps of hashing.
fn model(seed: u64) -> Vec<u8> {
    let mut file = TinyLlama { layers: 1, context: 64, ..tiny(seed) }.build();
    assert!(file.len() < 700_000);
    file.resize(700_000, 0);
    file
}

/// The script's walk, and what it tries at every message.
struct Walk<'a> {
    main: Trial,
    faults: &'a [Fault],
    matrix: Matrix,
    check: &'a dyn Fn(Trial),
}

impl<'a> Walk<'a> {
    /// Goes through the script once, trying the faults on the way.
    fn run(main: Trial, faults: &'a [Fault], check: &'a dyn Fn(Trial)) -> (Trial, Matrix) {
        let mut walk = Self { main, faults, matrix: Matrix::new(), check };
        while walk.main.at < walk.main.client.plan.ops.len() {
            let op = walk.main.op();
            if walk.main.client.call(op).is_some() {
                walk.call(op)
            } else {
                walk.wait(op)
            }
            walk.main.note_answer(op);
            walk.main.at += 1;
        }
        (walk.main, walk.matrix)
    }

    fn call(&mut self, op: Op) {
        loop {
            self.try_call(op);
            let call = self.main.submit(op).unwrap();
            let mut open = Some(call);
            let mut result = None;
            while self.main.icllama.host.replica().queued() > 0 {
                self.try_message(open);
                self.main.icllama.host.replica().step();
                if let Some(answer) = self.main.icllama.host.replica().answer(call) {
                    (open, result) = (None, Some(answer));
                }
            }
            let result = result.unwrap().map_err(|reject| panic!("{op:?}: {reject:?}"));
            match self.main.client.take(op, false, result) {
                Taken::Done => return,
                Taken::Again => {}
                Taken::Refused(reason) => panic!("{op:?}: {reason}"),
            }
        }
    }

    fn wait(&mut self, op: Op) {
        while !is_over(&mut self.main.icllama, &self.main.client, op) {
            self.main.icllama.host.replica().begin_round(1_000_000_000);
            while self.main.icllama.host.replica().queued() > 0 {
                self.try_message(None);
                self.main.icllama.host.replica().step();
            }
        }
    }

    /// Tries what can happen to the call before it is sent.
    fn try_call(&mut self, op: Op) {
        let (kind, _) = self.main.client.call(op).unwrap();
        let suiting: Vec<Fault> = self.faults.iter().copied().filter(|fault| fault.suits_call(&self.main)).collect();
        for fault in suiting {
            if self.matrix.is_wanted(kind, fault) {
                let mut trial = self.main.fork();
                let how = trial.suffer_before(fault);
                self.matrix.note(kind, fault, how);
                (self.check)(trial.finish());
            }
        }
    }

    /// Tries what can happen to the message that is next.
    fn try_message(&mut self, call: Option<CallId>) {
        let message = self.main.icllama.host.replica().next_message().unwrap().clone();
        let kind = kind(self.main.op(), &message);
        for fault in self.faults.iter().filter(|fault| fault.suits_message(call, &message)) {
            if self.matrix.is_wanted(&kind, *fault) {
                let mut trial = self.main.fork();
                let how = trial.suffer(*fault, call);
                self.matrix.note(&kind, *fault, how);
                (self.check)(trial.finish());
            }
        }
    }
}

/// What the message is for and what it is.
fn kind(op: Op, message: &Message) -> String {
    let work = match op {
        Op::Verified => "verify",
        Op::Loaded => "load",
        Op::Finished => "run",
        _ => "chat",
    };
    match message {
        Message::Request(request) if matches!(request.origin, Origin::Ingress(_)) => request.method.clone(),
        Message::Request(_) => format!("{work}: step"),
        Message::Response(_) => format!("{work}: callback"),
        Message::Task { .. } => format!("{work}: timer"),
    }
}

fn install() -> Icllama<ShimHost> {
    Icllama::install(Box::new(ShimHost::with_fees()), ConfigUpdate::default())
}

fn begin(mut icllama: Icllama<ShimHost>, plan: Plan, session_id: u64) -> Trial {
    icllama.config_set(small_steps()).unwrap();
    let client = Client { session_id, ..Client::new(&Rc::new(plan)) };
    Trial { icllama, client, at: 0 }
}

const UPLOAD: [Op; 6] = [Op::Begin, Op::Chunk(0), Op::Chunk(1), Op::Chunk(2), Op::Commit, Op::Verified];

/// The whole life of a model, and what comes of it undisturbed.
fn life() -> Trial {
    use Op::*;
    let use_it = [LoadStep, Loaded, Create, Run, Finished, Append, Advance, Restart, Advance, Chat, Delete];
    let file = model(1);
    let native = Native::load(&file, Kernel::detect(), 1).generate(&question()).0;
    let plan = Plan::new("model", file, [UPLOAD.as_slice(), &use_it].concat());
    let mut trial = begin(install(), plan, 0);
    let undisturbed = trial.fork().whole();
    assert_eq!(undisturbed[0], Answer::Session(native));
    trial.client.plan.expected.set(undisturbed).unwrap();
    trial
}

/// The model serves and nothing else is on its way; the client got the bits that it would have got undisturbed.
fn check_life(mut trial: Trial) {
    let status = trial.icllama.model_status();
    assert_eq!(status.load, LoadState::Ready);
    assert_eq!(status.serving.unwrap().file.sha256, trial.client.plan.sha256);
    assert_eq!((status.candidate, status.rejected), (None, None));
    assert_eq!(trial.client.answers, trial.client.plan.expected());
    sanity::check(&mut trial.icllama);
}

fn walked(trial: Trial, faults: &[Fault], check: &dyn Fn(Trial)) {
    let (end, matrix) = Walk::run(trial, faults, check);
    check(end);
    println!("{matrix}");
    assert!(matrix.is_complete());
}

#[test]
fn every_message_survives_being_killed() {
    let dense = [0, 10, 100, 250, 500, 750, 900, 1000].map(Fault::Killed);
    let places: &[Fault] = if Matrix::new().is_all() { &dense } else { &[Fault::Killed(500)] };
    walked(life(), places, &check_life);
}

#[test]
fn every_message_survives_an_upgrade_around_it() {
    walked(life(), &[Fault::Upgraded, Fault::AnswerLost], &check_life);
}

#[test]
fn every_message_survives_a_canister_that_does_not_run() {
    walked(life(), &[Fault::Stopped, Fault::Frozen, Fault::Late], &check_life);
}

#[test]
fn every_call_survives_what_the_network_and_others_do() {
    use Fault::*;
    walked(life(), &[Lost, Twice, Reordered, Overlapping, Corrupted, SecondClient], &check_life);
}

/// An old model with a session in the middle of its answer, and the upload of a new one that comes to nothing.
fn failing(name: &'static str, spoil: fn(&mut Plan)) -> Trial {
    let old = model(1);
    let expected = Native::load(&old, Kernel::detect(), 1).generate(&question()).0;
    let mut icllama = install();
    icllama.serve("old", &old);
    let session_id = icllama.session_create(question()).unwrap().session_id;
    let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(2), profile: None };
    icllama.session_advance(arg).unwrap();
    let mut plan = Plan::new(name, model(2), [UPLOAD.as_slice(), &[Op::Loaded, Op::Advance]].concat());
    spoil(&mut plan);
    plan.expected.set(vec![Answer::Session(expected)]).unwrap();
    begin(icllama, plan, session_id)
}

/// The old model serves, its session went on, and what is wrong with the new one is told.
fn check_failing(mut trial: Trial) {
    let (status, plan) = (trial.icllama.model_status(), &trial.client.plan);
    assert_eq!((status.load, status.candidate), (LoadState::Ready, None));
    assert_eq!((status.serving.unwrap().file.name, status.stored.unwrap().name), ("old".into(), "old".into()));
    if plan.is_spoilt() {
        assert_eq!(status.upload.unwrap().state, UploadState::HashMismatch);
    } else {
        assert_eq!(status.rejected.unwrap().model.name, plan.name);
    }
    assert_eq!(trial.client.answers, plan.expected());
    sanity::check(&mut trial.icllama);
}

const ANYTHING: [Fault; 6] =
    [Fault::Killed(500), Fault::Upgraded, Fault::Stopped, Fault::Frozen, Fault::Twice, Fault::SecondClient];

/// What is tried with files that fail early: less, unless all is asked for.
fn something() -> &'static [Fault] {
    if Matrix::new().is_all() { &ANYTHING } else { &[Fault::Killed(500), Fault::Upgraded, Fault::SecondClient] }
}

#[test]
fn a_file_with_another_hash_leaves_the_old_model_whatever_happens() {
    walked(failing("damaged", |plan| plan.sha256[7] ^= 1), something(), &check_failing);
}

#[test]
fn a_file_that_is_no_model_leaves_the_old_one_whatever_happens() {
    let spoil = |plan: &mut Plan| {
        plan.file[..4].copy_from_slice(b"GGML");
        plan.sha256 = Sha256::digest(&plan.file).to_vec();
    };
    walked(failing("no model", spoil), something(), &check_failing);
}

#[test]
fn a_model_that_fails_while_it_is_packed_leaves_the_old_one_whatever_happens() {
    let spoil = |plan: &mut Plan| {
        let at =
            model_core::gguf::File::read(&plan.file).unwrap().tensor("output_norm.weight").unwrap().offset as usize;
        plan.file[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        plan.sha256 = Sha256::digest(&plan.file).to_vec();
    };
    walked(failing("broken", spoil), &ANYTHING, &check_failing);
}
