//! The clock of profiles and traces: `model-core` has none of its own.

use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds since the first reading.
pub fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let nanoseconds = START.get_or_init(Instant::now).elapsed().as_nanos();
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}
