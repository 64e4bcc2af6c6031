//! The model of a deployed canister, over the network.

use std::time::Instant;

use anyhow::{Result, bail};
use local_runner::shim::cycles::{REFERENCE_NODES, Tariff, Usage};
use model_core::source::ByteSource;

use super::args::ShimArgs;
use super::canister::{CanisterBackend, Plan};
use super::client::{Answer, Client, Transport};
use super::convert::chat_support;
use super::cost::CallCost;
use super::millis;
use crate::network::Connection;

/// Tokens per call unless told otherwise: few enough that an answer is seen to grow, and enough that the charges of each call,
/// for pages and for itself, are a small part.
const TOKENS_PER_CALL: u32 = 16;

/// A deployed canister, with at most one session.
pub type NetworkBackend = CanisterBackend<NetworkTransport>;

/// Calls over the network.
pub struct NetworkTransport {
    connection: Connection,
    tariff: Tariff,
}

impl NetworkBackend {
    /// Asks the canister for its model.
    ///
    /// # Errors
    /// If it does not answer, or has no model that does.
    pub fn open(connection: Connection, calls: &ShimArgs) -> Result<Self> {
        let start = Instant::now();
        let tariff = Tariff::for_nodes(connection.nodes().unwrap_or(REFERENCE_NODES));
        let plan = Plan {
            max_instructions: calls.max_instructions.into_iter().collect(),
            tokens_per_call: Some(calls.tokens_per_call.unwrap_or(TOKENS_PER_CALL)),
            upgrade_at: None,
        };
        let mut backend = Self::new(Client::new(NetworkTransport { connection, tariff }), plan);
        backend.chat = chat_support(&backend.client.model_info()?);
        backend.load_ms = millis(start.elapsed());
        Ok(backend)
    }

    /// Refuses a model file that cannot be the canister's.
    ///
    /// # Errors
    /// If it has another size.
    pub fn check_model(&mut self, file: &dyn ByteSource) -> Result<()> {
        let theirs = self.client.model_info()?.file;
        if theirs.bytes != file.len() {
            bail!(
                "the canister's model is {} with {} bytes, and not this file of {}",
                theirs.name,
                theirs.bytes,
                file.len()
            );
        }
        Ok(())
    }
}

impl Transport for NetworkTransport {
    const NAME: &'static str = "canister";
    const IS_STREAMING: bool = true;
    const IS_ELSEWHERE: bool = true;

    fn update(&mut self, method: &'static str, arg: Vec<u8>) -> Answer<Vec<u8>> {
        let (start, ingress_bytes) = (Instant::now(), Connection::message_bytes(arg.len()));
        let reply = self.connection.update(method, arg)?;
        let usage = Usage { executions: 1, ingress_messages: 1, ingress_bytes, ..Usage::default() };
        let cost = CallCost {
            method,
            prompt_tokens: 0,
            generated_tokens: 0,
            instructions: 0,
            page_instructions: None,
            admission_instructions: None,
            cycles: self.tariff.total(&usage),
            wall_ms: millis(start.elapsed()),
        };
        Ok((reply, cost))
    }

    fn query(&mut self, method: &str, arg: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.connection.query(method, arg)?)
    }

    fn read(&mut self, method: &'static str, arg: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.connection.update(method, arg)?)
    }

    fn complete(&self, cost: &mut CallCost, instructions: u64) {
        cost.instructions = instructions;
        cost.cycles += self.tariff.instructions(instructions);
    }

    fn upgrade(&mut self) -> Result<CallCost> {
        bail!("a deployed canister is upgraded by its controllers, with their tools")
    }
}
