//! What an upload is going to cost, before anything is sent: calls, bytes, instructions and cycles.

use local_runner::shim::cycles::{Tariff, Usage};
use serde::Serialize;

use crate::network::Connection;

/// Instructions for each byte of a chunk, pages included (docs/candid.md, "Upload").
const RECEIVING: u64 = 9;
/// Instructions for each byte that is hashed (docs/candid.md, "Upload").
const HASHING: u64 = 78;
/// Instructions for each byte of the file while the model is loaded: 18 to 30 in bench/record, by format.
const LOADING: u64 = 30;
/// Where a call of the canister stops computing, by default.
const CALL_INSTRUCTIONS: u64 = 36_000_000_000;
/// Bytes of a chunk's argument besides the chunk.
const CHUNK_ARGUMENT_BYTES: usize = 64;

/// What sending a file, having it verified and having it loaded takes. Queries cost nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Update calls: the announcement, the chunks, the verification.
    pub calls: u64,
    /// Bytes of the file that are sent.
    pub bytes: u64,
    /// Bytes of the messages that carry them.
    pub ingress_bytes: u64,
    /// Instructions of all, loading included.
    pub instructions: u64,
    /// Cycles of all.
    pub cycles: u128,
    /// Cycles for each day that the file is kept in stable memory.
    pub storage_cycles_per_day: u128,
    /// Nodes of the subnet that the prices are those of.
    pub nodes: u64,
}

impl Estimate {
    /// For a file of which `missing` bytes are sent in chunks.
    pub fn new(file_bytes: u64, missing: u64, chunks: u64, nodes: u64) -> Self {
        let tariff = Tariff::for_nodes(nodes);
        let verification = file_bytes.saturating_mul(HASHING);
        let loading = file_bytes.saturating_mul(LOADING);
        let calls = 1 + chunks + verification.div_ceil(CALL_INSTRUCTIONS);
        let ingress_bytes = missing + calls * Connection::message_bytes(CHUNK_ARGUMENT_BYTES);
        let instructions = missing * RECEIVING + verification + loading;
        let usage = Usage {
            executions: calls + loading.div_ceil(CALL_INSTRUCTIONS),
            instructions,
            ingress_messages: calls,
            ingress_bytes,
            ..Usage::default()
        };
        Self {
            calls,
            bytes: missing,
            ingress_bytes,
            instructions,
            cycles: tariff.total(&usage),
            storage_cycles_per_day: tariff.idle_day(file_bytes, 0),
            nodes,
        }
    }

    /// Cycles for some of the chunks.
    pub fn of_chunks(chunks: u64, bytes: u64, nodes: u64) -> u128 {
        let ingress_bytes = bytes + chunks * Connection::message_bytes(CHUNK_ARGUMENT_BYTES);
        let instructions = bytes * RECEIVING;
        let usage =
            Usage { executions: chunks, instructions, ingress_messages: chunks, ingress_bytes, ..Usage::default() };
        Tariff::for_nodes(nodes).total(&usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_messages_make_most_of_the_price() {
        let million = 1_000_000;
        let estimate = Estimate::new(100 * million, 100 * million, 50, 13);
        assert_eq!(estimate.calls, 1 + 50 + 1);
        assert_eq!(estimate.instructions, 117 * 100 * million);
        let ingress = 2_000 * u128::from(estimate.ingress_bytes);
        assert!(ingress > estimate.cycles * 9 / 10 && ingress < estimate.cycles, "{estimate:?}");
        let resumed = Estimate::new(100 * million, 2 * million, 1, 13);
        assert!(resumed.cycles * 10 < estimate.cycles, "what is there is not paid again");
        let larger = Estimate::new(100 * million, 100 * million, 50, 34);
        assert!(larger.cycles * 13 / 34 <= estimate.cycles && larger.cycles > 2 * estimate.cycles);
        assert!(Estimate::of_chunks(50, 100 * million, 13) < estimate.cycles);
    }
}
