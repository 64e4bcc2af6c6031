//! How a replica is set up.

use std::path::PathBuf;

use candid::Principal;
use sha2::{Digest, Sha256};

use super::costs::PageCharges;
use super::limits::Limits;

/// Set-up of a replica. Two replicas with equal set-ups that are given the same calls do the same.
#[derive(Debug, Clone)]
pub struct Config {
    /// Ceilings.
    pub limits: Limits,
    /// What page accesses cost.
    pub pages: PageCharges,
    /// Nodes of the subnet, which set its prices.
    pub nodes: u64,
    /// Time at the start, in nanoseconds since 1970.
    pub start_time_ns: u64,
    /// How far [`tick`](super::Replica::tick) moves the time, in nanoseconds.
    pub tick_ns: u64,
    /// Ticks that [`update`](super::Replica::update) waits for an answer once all messages are processed.
    pub patience_ticks: u64,
    /// Messages that one tick or one call may process; what is left stays queued.
    pub messages_per_run: u64,
    /// Balance of canisters created from outside.
    pub initial_cycles: u128,
    /// Take fees from balances, keep the freezing threshold, and refuse what a balance does not cover.
    ///
    /// Off: fees are only reported; transfers between canisters always move cycles.
    pub enforce_cycles: bool,
    /// Source of `raw_rand`.
    pub seed: u64,
    /// The subnet's public key in DER, which `ic0.root_key_copy` returns; the subnet's id follows from it.
    pub root_key: Vec<u8>,
    /// Where compiled modules are kept; none to compile always.
    pub module_cache: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            pages: PageCharges::default(),
            nodes: 13,
            // The platform's genesis, 6 May 2021, like other local replicas.
            start_time_ns: 1_620_328_630_000_000_000,
            tick_ns: 1_000_000_000,
            patience_ticks: 1_000,
            messages_per_run: 1_000_000,
            initial_cycles: 1_000_000_000_000_000,
            enforce_cycles: false,
            seed: 0,
            root_key: placeholder_root_key(),
            module_cache: super::engine::default_cache_directory(),
        }
    }
}

impl Config {
    /// The subnet's id: the self-authenticating principal of its public key.
    pub fn subnet(&self) -> Principal {
        Principal::self_authenticating(&self.root_key)
    }
}

/// A BLS12-381 public key in DER, the form in which root keys are given.
pub fn root_key_der(key: &[u8; 96]) -> Vec<u8> {
    /// DER header of a public key of 96 bytes.
    const DER_HEADER: [u8; 37] = [
        0x30, 0x81, 0x82, 0x30, 0x1d, 0x06, 0x0d, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x01,
        0x02, 0x01, 0x06, 0x0c, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x02, 0x01, 0x03, 0x61,
        0x00,
    ];
    [DER_HEADER.as_slice(), key].concat()
}

/// A key of the right form that nobody has the secret of.
fn placeholder_root_key() -> Vec<u8> {
    let mut key = [0; 96];
    for (part, bytes) in (0u8..).zip(key.chunks_exact_mut(32)) {
        let digest = Sha256::digest([b"icllama placeholder root key ".as_slice(), &[part]].concat());
        bytes.copy_from_slice(&digest);
    }
    root_key_der(&key)
}
