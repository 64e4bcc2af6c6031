//! The local endpoint as real agents use it: ic-agent with all its verification, and plain HTTP for the rest.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod admission;
mod agents;
mod calls;
mod command;
mod folder;
mod gateway;
mod limits;

use candid::Principal;
use ic_agent::agent::RejectCode;
use ic_agent::{Agent, AgentError};

async fn inc(agent: &Agent, canister: Principal, by: u8) -> Result<u32, AgentError> {
    let reply = agent.update(&canister, "inc").with_arg(vec![by]).call_and_wait().await?;
    Ok(u32::from_le_bytes(reply.try_into().unwrap()))
}

async fn get(agent: &Agent, canister: Principal) -> u32 {
    let reply = agent.query(&canister, "get").call().await.unwrap();
    u32::from_le_bytes(reply.try_into().unwrap())
}

fn reject(error: AgentError) -> (RejectCode, String, String) {
    match error {
        AgentError::CertifiedReject { reject, .. } | AgentError::UncertifiedReject { reject, .. } => {
            (reject.reject_code, reject.error_code.unwrap_or_default(), reject.reject_message)
        }
        other => panic!("not a reject: {other}"),
    }
}
