//! The clocks of profiles, traces and chat templates: `model-core` has none of its own.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

/// Nanoseconds since the first reading.
pub fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let nanoseconds = START.get_or_init(Instant::now).elapsed().as_nanos();
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}

/// Seconds since 1970 (UTC) when it was first asked for: to the templates of one command it is always the same time.
pub fn now_seconds() -> i64 {
    static NOW: OnceLock<i64> = OnceLock::new();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    *NOW.get_or_init(|| i64::try_from(now()).unwrap_or(i64::MAX))
}
