//! The canister's methods by name: candid in, candid out, as `canister::lib` wires them.

use ::candid::{CandidType, decode_one, encode_one};
use canister::api::*;
use canister::decode::{self, Refused};
use canister::service::{Service, llm};
use serde::de::DeserializeOwned;

use super::platform::{Pages, Platform};

pub(super) type TestService = Service<Pages, Platform>;

/// Calls that change something, and how.
macro_rules! methods {
    ($(update $update:ident;)* $(query $query:ident;)*) => {
        /// Names of the methods.
        pub(super) const METHODS: &[&str] = &[$(stringify!($update),)* $(stringify!($query),)* "upload_chunk", "http_request", "v1_chat"];

        /// Calls a method; whether it answered with an error, or how the message is no argument of it.
        pub(super) fn call(service: &mut TestService, method: &str, message: &[u8]) -> Result<bool, Refused> {
            match method {
                $(stringify!($update) => {
                    let answer = service.$update(decode::decoded(message)?);
                    service.count_call(&answer);
                    Ok(answered(answer))
                })*
                $(stringify!($query) => Ok(answered(service.$query(decode::decoded(message)?))),)*
                "upload_chunk" => {
                    let chunk = decode::decoded_chunk(message.to_vec())?;
                    Ok(answered(service.upload_chunk(chunk.chunk())))
                }
                "http_request" => {
                    let response = service.http_request(&decode::decoded(message)?);
                    Ok(response.status_code != 200)
                }
                _ => Ok(answered(chat(service, decode::decoded(message)?))),
            }
        }
    };
}

methods! {
    update upload_begin;
    update upload_commit;
    update upload_abort;
    update model_load_step;
    update session_create;
    update session_advance;
    update session_run;
    update session_append;
    update session_restart;
    update session_cancel;
    update session_delete;
    query upload_status;
    query session_output;
    query session_tokens;
    query session_digests;
    query session_logprobs;
    query session_logits;
    query session_list;
}

/// A conversation that is answered at once, as `canister::llm` does it; one that takes long is given up.
fn chat(service: &mut TestService, request: LlmRequest) -> Result<String, Error> {
    let id = service.chat_begin(llm::messages_v1(request)?)?;
    let over = (0..16).find_map(|_| service.chat_step(id).map(|over| over.then_some(())).transpose());
    let text = service.chat_text(id);
    service.chat_end(id);
    over.transpose()?;
    text
}

/// Whether an answer is an error; either way it can be sent and received.
fn answered<T: CandidType + DeserializeOwned>(answer: Result<T, Error>) -> bool {
    let bytes = encode_one(&answer).expect("the answer can be sent");
    let received: Result<T, Error> = decode_one(&bytes).expect("the answer can be received");
    if let Err(error) = &received {
        assert!(!error.to_string().is_empty());
    }
    received.is_err()
}
