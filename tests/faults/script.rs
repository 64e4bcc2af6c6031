//! The life of a model as its client sees it: calls and waits in order, and what the client knows in between.

use std::cell::OnceCell;
use std::rc::Rc;

use candid::CandidType;
use canister::api::*;
use end_to_end::{Chunk, Generation, Icllama, Reject, ShimHost, audited, chat, chunks, is_finished};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// One thing that the client does or waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Announces the file.
    Begin,
    /// Sends this chunk of it.
    Chunk(usize),
    /// Declares it complete.
    Commit,
    /// Waits until the hash is found right, or wrong.
    Verified,
    /// Loads one step.
    LoadStep,
    /// Waits until a model answers and nothing else is to be loaded.
    Loaded,
    /// Makes the session.
    Create,
    /// Calls until the session is finished.
    Advance,
    /// Lets the session run by itself.
    Run,
    /// Waits until the session is finished.
    Finished,
    /// Goes on with the session.
    Append,
    /// Begins the session anew.
    Restart,
    /// Has a conversation answered in one call.
    Chat,
    /// Deletes the session.
    Delete,
}

/// What all clients of one matrix have in common.
pub struct Plan {
    /// The file that is uploaded.
    pub file: Vec<u8>,
    /// The hash that is announced.
    pub sha256: Vec<u8>,
    /// Bytes of a chunk.
    pub chunk_bytes: usize,
    /// Name under which it is announced.
    pub name: &'static str,
    /// What is done.
    pub ops: Vec<Op>,
    /// What comes of it undisturbed.
    pub expected: OnceCell<Vec<Answer>>,
}

impl Plan {
    /// Uploads `file` as it is in three chunks.
    pub fn new(name: &'static str, file: Vec<u8>, ops: Vec<Op>) -> Self {
        let chunk_bytes = file.len().div_ceil(3);
        Self { sha256: Sha256::digest(&file).to_vec(), file, chunk_bytes, name, ops, expected: OnceCell::new() }
    }

    /// Whether the file cannot have the hash that is announced.
    pub fn is_spoilt(&self) -> bool {
        Sha256::digest(&self.file).as_slice() != self.sha256
    }

    /// What comes of it undisturbed.
    pub fn expected(&self) -> &[Answer] {
        self.expected.get().unwrap()
    }

    /// One of the chunks.
    pub fn chunk(&self, index: usize) -> Chunk<'_> {
        chunks(&self.file, self.chunk_bytes)[index]
    }
}

/// What the client of a canister knows.
#[derive(Clone)]
pub struct Client {
    pub plan: Rc<Plan>,
    pub upload_id: u64,
    pub session_id: u64,
    /// What finished sessions and calls gave, in order.
    pub answers: Vec<Answer>,
    /// Bytes whose arrival the canister acknowledged.
    pub acknowledged: u64,
}

/// What came of a generation.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Of a session.
    Session(Generation),
    /// Of one call.
    Text(String),
}

/// What the client makes of an answer.
#[derive(Debug)]
pub enum Taken {
    /// It did what it should.
    Done,
    /// It did a part.
    Again,
    /// It did not do it.
    Refused(String),
}

/// Sampling with penalties and a chat, so that everything a session keeps is in play.
pub fn question() -> SessionCreateArg {
    let options = SessionOptions {
        temperature: Some(1.1),
        repeat_penalty: Some(1.3),
        seed: Some(42),
        prefill_batch: Some(16),
        ..audited(5)
    };
    SessionCreateArg { input: chat("Be kind.", "hello world"), options }
}

fn more() -> SessionInput {
    SessionInput::Messages(vec![ChatMessage::User(MessageText { content: "more".into() })])
}

fn anew() -> SessionCreateArg {
    let mut question = question();
    question.input = chat("Be kind.", "hello the world");
    question
}

fn encoded<T: CandidType>(arg: T) -> Vec<u8> {
    candid::encode_one(arg).unwrap()
}

impl Client {
    pub fn new(plan: &Rc<Plan>) -> Self {
        Self { plan: Rc::clone(plan), upload_id: 0, session_id: 0, answers: Vec::new(), acknowledged: 0 }
    }

    /// Method and argument of the call that does `op`; none if that is only waited for.
    pub fn call(&self, op: Op) -> Option<(&'static str, Vec<u8>)> {
        let Self { upload_id, session_id, plan, .. } = self;
        let (upload_id, session_id) = (*upload_id, *session_id);
        Some(match op {
            Op::Begin => ("upload_begin", encoded(self.announcement())),
            Op::Chunk(index) => ("upload_chunk", self.chunk(plan.chunk(index))),
            Op::Commit => ("upload_commit", encoded(UploadCommitArg { upload_id, max_instructions: None })),
            Op::LoadStep => ("model_load_step", encoded(ModelLoadStepArg { max_instructions: Some(1) })),
            Op::Create => ("session_create", encoded(question())),
            Op::Advance => {
                let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
                ("session_advance", encoded(arg))
            }
            Op::Run => ("session_run", encoded(SessionIdArg { session_id })),
            Op::Append => {
                let arg = SessionAppendArg { session_id, input: more(), max_tokens: Some(3) };
                ("session_append", encoded(arg))
            }
            Op::Restart => {
                let SessionCreateArg { input, options } = anew();
                ("session_restart", encoded(SessionRestartArg { session_id, input, options }))
            }
            Op::Chat => {
                let messages = vec![LlmMessage::User { content: "hi".into() }];
                ("v1_chat", encoded(LlmRequest { model: String::new(), messages, tools: None }))
            }
            Op::Delete => ("session_delete", encoded(SessionIdArg { session_id })),
            Op::Verified | Op::Loaded | Op::Finished => return None,
        })
    }

    /// The announcement of the file.
    pub fn announcement(&self) -> UploadBeginArg {
        let Plan { file, sha256, name, .. } = &*self.plan;
        UploadBeginArg { name: (*name).into(), total_bytes: file.len() as u64, sha256: sha256.clone() }
    }

    /// The argument that sends `chunk`.
    pub fn chunk(&self, chunk: Chunk<'_>) -> Vec<u8> {
        let Chunk { offset, bytes } = chunk;
        encoded(UploadChunkArg { upload_id: self.upload_id, offset: offset as u64, bytes: bytes.to_vec() })
    }

    /// What to make of the answer to the call of `op`, the first or a repeated one.
    pub fn take(&mut self, op: Op, repeated: bool, result: Result<Vec<u8>, Reject>) -> Taken {
        let reply = match result {
            Ok(reply) => reply,
            Err(reject) => return Taken::Refused(format!("{} {}", reject.error_code, reject.message)),
        };
        match op {
            Op::Begin => self.note(&reply, |client, begun: UploadBeginOk| client.upload_id = begun.upload_id),
            Op::Chunk(_) => self.note(&reply, |client, sent: UploadChunkOk| client.acknowledged = sent.received_bytes),
            Op::Commit => match answer::<UploadCommitOk>(&reply) {
                Err(Error::HashMismatch { .. }) if self.plan.is_spoilt() => Taken::Done,
                _ => self.note(&reply, |_, _: UploadCommitOk| ()),
            },
            Op::LoadStep => self.note(&reply, |_, _: ModelLoadStepOk| ()),
            Op::Create => self.note(&reply, |client, made: SessionCreateOk| client.session_id = made.session_id),
            Op::Advance => match answer::<SessionProgress>(&reply) {
                Ok(progress) if is_finished(&progress.status) => Taken::Done,
                Ok(_) => Taken::Again,
                Err(error) => Taken::Refused(error.to_string()),
            },
            Op::Run => self.note(&reply, |_, _: SessionStatus| ()),
            Op::Append => self.once(&reply, repeated, |_: SessionAppendOk| ()),
            Op::Restart => self.once(&reply, repeated, |_: SessionRestartOk| ()),
            Op::Chat => {
                let answered: LlmResponse = candid::decode_one(&reply).unwrap();
                self.answers.push(Answer::Text(answered.message.content.unwrap_or_default()));
                Taken::Done
            }
            Op::Delete => self.once(&reply, repeated, |(): ()| ()),
            Op::Verified | Op::Loaded | Op::Finished => panic!("nothing was called"),
        }
    }

    fn note<T: CandidType + DeserializeOwned>(&mut self, reply: &[u8], note: impl FnOnce(&mut Self, T)) -> Taken {
        match answer(reply) {
            Ok(answer) => {
                note(self, answer);
                Taken::Done
            }
            Err(error) => Taken::Refused(error.to_string()),
        }
    }

    /// Of a call that can be made once only: repeated it is refused because it was made.
    fn once<T: CandidType + DeserializeOwned>(&mut self, reply: &[u8], repeated: bool, note: fn(T)) -> Taken {
        match answer::<T>(reply) {
            Err(Error::SessionNotFinished { .. } | Error::SessionNotFound { .. }) if repeated => Taken::Done,
            _ => self.note(reply, |_, answer| note(answer)),
        }
    }
}

/// The answer of a method, or its refusal.
pub fn answer<T: CandidType + DeserializeOwned>(reply: &[u8]) -> Result<T, Error> {
    candid::decode_one(reply).unwrap()
}

/// Whether what `op` waits for has come.
pub fn is_over(icllama: &mut Icllama<ShimHost>, client: &Client, op: Op) -> bool {
    match op {
        Op::Verified => {
            let upload = icllama.model_status().upload;
            upload.is_none_or(|upload| upload.state == UploadState::HashMismatch)
        }
        Op::Loaded => icllama.model_status().load == LoadState::Ready,
        Op::Finished => {
            let arg = SessionOutputArg { session_id: client.session_id, from: 0 };
            icllama.session_output(arg).is_ok_and(|output| is_finished(&output.status))
        }
        _ => true,
    }
}
