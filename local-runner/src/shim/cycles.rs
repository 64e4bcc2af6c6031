//! What messages cost in cycles, on subnets of any size.
//!
//! Prices are data: those of a 13-node application subnet; a subnet of `n` nodes pays `n / 13` of them, rounded down
//! per item (dfinity/ic `rs/config/src/subnet_config.rs`, `cycles_account_manager`). This module computes, it moves no
//! balance.

/// Nodes of the subnet that the price list is for.
pub const REFERENCE_NODES: u64 = 13;

/// Prices in cycles on a subnet of [`REFERENCE_NODES`] nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// Each execution of an update, callback, timer or heartbeat.
    pub execution: u64,
    /// Ten instructions of a 32-bit module.
    pub ten_instructions: u64,
    /// Receiving an ingress message.
    pub ingress_message: u64,
    /// A byte of an ingress message.
    pub ingress_byte: u64,
    /// An inter-canister call, request and response together.
    pub call: u64,
    /// A byte of an inter-canister request or response.
    pub call_byte: u64,
    /// Creating a canister.
    pub create_canister: u64,
    /// Keeping one GiB for one second.
    pub gib_second: u64,
    /// Being a canister for one second.
    pub canister_second: u64,
    /// Guaranteeing one percent of a core for one second.
    pub compute_percent_second: u64,
    /// Uploading a chunk of a module.
    pub upload_chunk: u64,
}

/// The mid-2026 price list.
pub const PRICES: Prices = Prices {
    execution: 5_000_000,
    ten_instructions: 10,
    ingress_message: 1_200_000,
    ingress_byte: 2_000,
    call: 260_000,
    call_byte: 1_000,
    create_canister: 500_000_000_000,
    gib_second: 317_500,
    canister_second: 10_000,
    compute_percent_second: 10_000_000,
    upload_chunk: 200_000_000,
};

/// Cycles for a threshold signature or key derivation with the key `name`, whose subnet is not the canister's own.
///
/// `None` for a key that the platform does not have. The shim prices these calls, it does not provide them.
pub fn threshold_key(name: &str) -> Option<u128> {
    match name {
        "test_key_1" => Some(10_000_000_000),
        "key_1" => Some(26_153_846_153),
        _ => None,
    }
}

/// What a message, or several together, used of the things that have a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Executions that pay the base fee.
    pub executions: u64,
    /// Instructions of those executions.
    pub instructions: u64,
    /// Ingress messages received.
    pub ingress_messages: u64,
    /// Bytes of those ingress messages.
    pub ingress_bytes: u64,
    /// Inter-canister calls made.
    pub calls: u64,
    /// Bytes of requests sent and of responses given to other canisters.
    pub call_bytes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.executions += other.executions;
        self.instructions += other.instructions;
        self.ingress_messages += other.ingress_messages;
        self.ingress_bytes += other.ingress_bytes;
        self.calls += other.calls;
        self.call_bytes += other.call_bytes;
    }
}

/// A price list applied to a subnet of a certain size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tariff {
    prices: Prices,
    nodes: u64,
}

impl Tariff {
    /// The mid-2026 prices on a subnet of `nodes` nodes.
    pub fn for_nodes(nodes: u64) -> Self {
        Self { prices: PRICES, nodes }
    }

    /// Cycles for an item that costs `at_reference` on the reference subnet.
    pub fn scale(&self, at_reference: u128) -> u128 {
        at_reference.saturating_mul(u128::from(self.nodes)) / u128::from(REFERENCE_NODES)
    }

    /// Cycles for instructions.
    pub fn instructions(&self, count: u64) -> u128 {
        self.scale(u128::from(count) * u128::from(self.prices.ten_instructions) / 10)
    }

    /// Cycles for `count` executions' base fee.
    pub fn executions(&self, count: u64) -> u128 {
        self.scale(u128::from(self.prices.execution)).saturating_mul(count.into())
    }

    /// Cycles for receiving ingress messages.
    pub fn ingress(&self, messages: u64, bytes: u64) -> u128 {
        let base = self.scale(self.prices.ingress_message.into()).saturating_mul(messages.into());
        base.saturating_add(self.scale(u128::from(self.prices.ingress_byte) * u128::from(bytes)))
    }

    /// Cycles for transmitting inter-canister calls and their bytes.
    pub fn calls(&self, calls: u64, bytes: u64) -> u128 {
        let base = self.scale(self.prices.call.into()).saturating_mul(calls.into());
        base.saturating_add(self.scale(u128::from(self.prices.call_byte) * u128::from(bytes)))
    }

    /// Cycles for everything in `usage`.
    pub fn total(&self, usage: &Usage) -> u128 {
        self.executions(usage.executions)
            .saturating_add(self.instructions(usage.instructions))
            .saturating_add(self.ingress(usage.ingress_messages, usage.ingress_bytes))
            .saturating_add(self.calls(usage.calls, usage.call_bytes))
    }

    /// What `ic0.cost_call` answers: transmission of request and largest reply, and a full callback execution.
    pub fn call_reservation(&self, request_bytes: u64, reply_bytes: u64, callback_instructions: u64) -> u128 {
        self.calls(1, request_bytes.saturating_add(reply_bytes))
            .saturating_add(self.executions(1))
            .saturating_add(self.instructions(callback_instructions))
    }

    /// Cycles for creating a canister.
    pub fn create_canister(&self) -> u128 {
        self.scale(self.prices.create_canister.into())
    }

    /// Cycles for uploading one chunk of a module.
    pub fn upload_chunk(&self) -> u128 {
        self.scale(self.prices.upload_chunk.into())
    }

    /// Cycles for an HTTPS outcall; every node makes the request, so this price is not proportional to the nodes.
    ///
    /// The shim prices these calls, it does not provide them.
    pub fn http_request(&self, request_bytes: u64, response_bytes: u64) -> u128 {
        let nodes = u128::from(self.nodes);
        let bytes = 400 * u128::from(request_bytes) + 800 * u128::from(response_bytes);
        (3_000_000 + 60_000 * nodes + bytes).saturating_mul(nodes)
    }

    /// Cycles that an idle canister burns per day for `bytes` of memory and its compute allocation.
    pub fn idle_day(&self, bytes: u64, compute_percent: u64) -> u128 {
        const DAY_SECONDS: u128 = 86_400;
        let storage = u128::from(bytes) * u128::from(self.prices.gib_second) * DAY_SECONDS / (1 << 30);
        let per_second = u128::from(self.prices.canister_second)
            + u128::from(self.prices.compute_percent_second) * u128::from(compute_percent);
        self.scale(storage + per_second * DAY_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_update() -> Usage {
        Usage { executions: 1, instructions: 40_000_000_000, ..Usage::default() }
    }

    #[test]
    fn prices_a_full_update_as_the_platform_does() {
        assert_eq!(Tariff::for_nodes(13).total(&full_update()), 40_005_000_000);
        assert_eq!(Tariff::for_nodes(34).total(&full_update()), 104_615_384_615 + 13_076_923);
    }

    #[test]
    fn prices_ingress_by_message_and_byte() {
        let usage = Usage { ingress_messages: 1, ingress_bytes: 1_000, ..Usage::default() };
        assert_eq!(Tariff::for_nodes(13).total(&usage), 1_200_000 + 2_000_000);
    }

    #[test]
    fn adds_usage_of_several_messages() {
        let mut sum = full_update();
        sum += Usage { executions: 1, calls: 2, call_bytes: 10, ..Usage::default() };
        assert_eq!(sum.executions, 2);
        assert_eq!(Tariff::for_nodes(13).total(&sum), 40_010_000_000 + 2 * 260_000 + 10_000);
    }

    #[test]
    fn reserves_a_call_with_its_largest_reply_and_a_full_callback() {
        let cycles = Tariff::for_nodes(13).call_reservation(100, 2 << 20, 40_000_000_000);
        assert_eq!(cycles, 260_000 + 1_000 * (100 + (2 << 20)) + 40_005_000_000);
    }

    #[test]
    fn prices_an_outcall_by_nodes_and_bytes() {
        assert_eq!(Tariff::for_nodes(13).http_request(0, 0), 49_140_000);
        assert_eq!(Tariff::for_nodes(13).http_request(1, 1), 49_140_000 + 5_200 + 10_400);
    }

    #[test]
    fn charges_an_idle_gib_by_the_day() {
        let day = Tariff::for_nodes(13).idle_day(1 << 30, 0);
        assert_eq!(day, 86_400 * (317_500 + 10_000));
    }
}
