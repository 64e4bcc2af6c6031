//! An endpoint with the real canister, and the command pointed at it.

use std::fs;
use std::path::Path;
use std::process::Output;

use candid::{CandidType, Principal};
use canister::api;
use ic_agent::identity::AnonymousIdentity;
use local_runner::endpoint::{Endpoint, Setup};
use local_runner::shim::{Config, InstallMode, Replica};
use model_core::fixtures::TinyLlama;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::endpoint::{agent, block_on, options};
use crate::common::{self, Tiny};

pub const OWNER: Principal = Principal::anonymous();

/// A deployed canister, which the anonymous principal controls.
pub struct Deployed {
    pub endpoint: Endpoint,
    pub canister: Principal,
    pub url: String,
}

fn wasm() -> Vec<u8> {
    let path = Path::new(env!("CARGO_BIN_EXE_icllama")).parent().unwrap().parent().unwrap().join("icllama.wasm.gz");
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; build it with scripts/build-canister.sh", path.display()))
}

fn call<A: CandidType, R: CandidType + DeserializeOwned>(
    replica: &mut Replica,
    canister: Principal,
    method: &str,
    arg: &A,
) -> R {
    let reply = replica.update(canister, OWNER, method, &candid::encode_one(arg).unwrap()).result.unwrap();
    candid::decode_one::<Result<R, api::Error>>(&reply).unwrap().unwrap()
}

fn take(replica: &mut Replica, canister: Principal, file: &[u8]) {
    let sha256 = Sha256::digest(file).to_vec();
    let arg = api::UploadBeginArg { name: "tiny.gguf".to_owned(), total_bytes: file.len() as u64, sha256 };
    let begun: api::UploadBeginOk = call(replica, canister, "upload_begin", &arg);
    let upload_id = begun.upload_id;
    for (index, bytes) in file.chunks(1_000_000).enumerate() {
        let offset = index as u64 * 1_000_000;
        let _: api::UploadChunkOk =
            call(replica, canister, "upload_chunk", &api::UploadChunk { upload_id, offset, bytes });
    }
    let arg = api::UploadCommitArg { upload_id, max_instructions: None };
    while !call::<_, api::UploadCommitOk>(replica, canister, "upload_commit", &arg).done {}
    let arg = api::ModelLoadStepArg { max_instructions: None };
    while !call::<_, api::ModelLoadStepOk>(replica, canister, "model_load_step", &arg).ready {}
}

impl Deployed {
    fn new(model: Option<&[u8]>) -> Self {
        let options = local_runner::endpoint::Options { config: Config::default(), ..options(None) };
        let mut setup = Setup::open(options).unwrap();
        let canister = setup.replica.create_canister([OWNER]);
        let arg = candid::encode_one(None::<api::InitArg>).unwrap();
        setup.replica.install(canister, InstallMode::Install, &wasm(), &arg, OWNER).result.unwrap();
        if let Some(model) = model {
            take(&mut setup.replica, canister, model);
        }
        let endpoint = setup.serve().unwrap();
        let url = format!("http://{}", endpoint.address());
        Self { endpoint, canister, url }
    }

    /// Without a model.
    pub fn empty() -> Self {
        Self::new(None)
    }

    /// With the tiny model, and the model's file.
    pub fn with_tiny() -> (Self, Tiny) {
        let model = TinyLlama { context: 512, ..TinyLlama::default() };
        (Self::new(Some(&model.build())), Tiny::new(&model))
    }

    fn arguments<'a>(&'a self, id: &'a str, network: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        [args, &["--canister", id, network, &self.url]].concat()
    }

    /// The command about this canister.
    pub fn command(&self, args: &[&str]) -> std::process::Command {
        common::command(&self.arguments(&self.canister.to_text(), "--network", args))
    }

    /// Runs the command about this canister.
    pub fn icllama(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What the command prints about this canister.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.icllama(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Has the command talk to this canister's model.
    pub fn talk(&self, args: &[&str], stdin: &str) -> Output {
        common::icllama_with_stdin(&self.arguments(&self.canister.to_text(), "--backend", args), stdin)
    }

    /// Calls the canister as its controller.
    pub fn update<A: CandidType, R: CandidType + DeserializeOwned>(&self, method: &str, arg: &A) -> R {
        block_on(async {
            let agent = agent(self.endpoint.address(), AnonymousIdentity).await;
            let call = agent.update(&self.canister, method).with_arg(candid::encode_one(arg).unwrap());
            candid::decode_one::<Result<R, api::Error>>(&call.call_and_wait().await.unwrap()).unwrap().unwrap()
        })
    }

    /// The code and message of a command that has to fail.
    pub fn failure(&self, args: &[&str]) -> (i32, String) {
        let output = self.icllama(args);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}
