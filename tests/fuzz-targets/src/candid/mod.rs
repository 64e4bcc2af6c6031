//! The canister's methods, called with candid of any content by anybody, in any order, with upgrades between.

mod arguments;
mod calls;
mod platform;

use std::cell::OnceCell;
use std::rc::Rc;

use ::candid::Principal;
use arbitrary::{Result, Unstructured};
use canister::api::*;
use model_core::fixtures::defects::sound;
use sha2::{Digest, Sha256};

use crate::pieces::one_of;
use arguments::Known;
use calls::{METHODS, TestService};
use platform::{CONTROLLER, Pages, Platform};

/// Most calls of a trial.
const CALLS: usize = 12;
/// The file that trials upload: no model, which is found out when it is loaded.
const FILE: &[u8] = b"GGUF\x03\0\0\0 this is no model";

const USER: Principal = Principal::from_slice(&[3, 0]);
/// Who calls. The stranger makes no sessions and may see none.
const CALLERS: [Principal; 4] = [CONTROLLER, USER, Principal::from_slice(&[3, 1]), Principal::anonymous()];
const STRANGER: Principal = Principal::from_slice(&[3, 3]);

thread_local! {
    /// Stable memory of a canister that has loaded a model.
    static SERVING: OnceCell<Rc<Vec<u8>>> = const { OnceCell::new() };
}

/// Some calls to a canister with a model, and an upgrade.
pub fn run(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let base = SERVING.with(|serving| Rc::clone(serving.get_or_init(|| Rc::new(serving_memory()))));
    let mut canister = Trial::open(Pages::over(base));
    canister.settle();
    for _ in 0..CALLS {
        if input.is_empty() || canister.call(&mut input).is_err() {
            break;
        }
    }
    canister.check_upgrade();
}

/// A canister and its platform.
struct Trial {
    memory: Pages,
    platform: Platform,
    service: TestService,
}

fn serving_memory() -> Vec<u8> {
    let config = ConfigUpdate { generate_access: Some(GenerateAccess::Anyone), ..ConfigUpdate::default() };
    let (memory, platform) = (Pages::default(), Platform::new());
    let service = TestService::open(memory.clone(), platform.clone(), Some(InitArg { config: Some(config) })).unwrap();
    let mut canister = Trial { memory, platform, service };
    let model = sound().build();
    canister.platform.next_message(CONTROLLER);
    let (total_bytes, sha256) = (model.len() as u64, Sha256::digest(&model).to_vec());
    let begin = UploadBeginArg { name: "tiny".into(), total_bytes, sha256 };
    let upload_id = canister.service.upload_begin(begin).unwrap().upload_id;
    canister.service.upload_chunk(UploadChunk { upload_id, offset: 0, bytes: &model }).unwrap();
    let commit = UploadCommitArg { upload_id, max_instructions: None };
    assert!(canister.service.upload_commit(commit).unwrap().done);
    canister.service.schedule();
    canister.settle();
    assert!(canister.service.model_status().serving.is_some());
    canister.memory.bytes()
}

impl Trial {
    fn open(memory: Pages) -> Self {
        let platform = Platform::new();
        platform.next_message(CONTROLLER);
        let service = TestService::open(memory.clone(), platform.clone(), None).unwrap();
        Self { memory, platform, service }
    }

    /// Lets everything happen that goes on by itself.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            if !self.platform.take_timer() {
                return;
            }
            self.platform.next_message(Principal::management_canister());
            self.service.background();
        }
        panic!("the background work does not end");
    }

    /// One call by somebody, with an argument of the right type or of any bytes.
    fn call(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let caller = *input.choose(&CALLERS)?;
        if input.ratio(1, 8)? {
            return self.configure(input, caller);
        }
        let method = one_of(input, METHODS)?;
        let message = if input.ratio(1, 4)? {
            let len = input.arbitrary_len::<u8>()?.min(input.len());
            input.bytes(len)?.to_vec()
        } else {
            let known = Known { sessions: self.sessions(), upload: self.upload() };
            arguments::message(input, method, &known)?
        };
        self.platform.next_message(caller);
        let before = self.state();
        let refused = calls::call(&mut self.service, method, &message).unwrap_or(true);
        // Whatever `session_advance` was refused for, it is what the session remembers.
        if refused && !matches!(method, "session_advance" | "session_run") {
            assert_eq!(self.state(), before, "{method} was refused and did something");
        }
        self.service.schedule();
        if input.ratio(1, 4)? {
            self.settle();
        }
        self.check_stranger();
        Ok(())
    }

    fn configure(&mut self, input: &mut Unstructured<'_>, caller: Principal) -> Result<()> {
        let update = arguments::config_update(input)?;
        let before = self.state();
        self.platform.next_message(caller);
        if self.service.config_set(&update).is_err() {
            assert_eq!(self.state(), before, "refused settings did something");
        }
        self.service.schedule();
        Ok(())
    }

    /// Settings and sessions, as a controller sees them.
    fn state(&self) -> (Config, Vec<u64>) {
        self.platform.next_message(CONTROLLER);
        (self.service.config_get().unwrap(), self.sessions())
    }

    fn sessions(&self) -> Vec<u64> {
        self.platform.next_message(CONTROLLER);
        let all = SessionListArg { after: None, limit: None, all: Some(true) };
        self.service.session_list(all).unwrap().sessions.iter().map(|session| session.status.session_id).collect()
    }

    fn upload(&self) -> Option<u64> {
        self.service.model_status().upload.map(|upload| upload.upload_id)
    }

    /// Who has no session sees none.
    fn check_stranger(&self) {
        let sessions = self.sessions();
        self.platform.next_message(STRANGER);
        for session_id in sessions {
            assert!(self.service.session_output(SessionOutputArg { session_id, from: 0 }).is_err());
            assert!(self.service.session_logits(SessionIdArg { session_id }).is_err());
        }
    }

    /// What is kept in stable memory is what there was.
    fn check_upgrade(mut self) {
        self.settle();
        let before = self.state();
        let time = self.platform.clone();
        self.service = TestService::open(self.memory.clone(), time, None).unwrap();
        self.settle();
        assert_eq!(self.state(), before, "after an upgrade");
    }
}
