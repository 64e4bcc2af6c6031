//! The clocks of profiles, traces and chat templates: `model-core` has none of its own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

/// Seconds since 1970 that templates are told; 0 before anybody asked.
static NOW: AtomicI64 = AtomicI64::new(0);

/// Nanoseconds since the first reading.
pub fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let nanoseconds = START.get_or_init(Instant::now).elapsed().as_nanos();
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}

/// Seconds since 1970 (UTC) when it was first asked for, or renewed: to the templates of one command it is always the same
/// time.
pub fn now_seconds() -> i64 {
    let started = NOW.compare_exchange(0, read(), Relaxed, Relaxed);
    started.map_or_else(|known| known, |_| NOW.load(Relaxed))
}

/// From now on [`now_seconds`] tells the present time, as it should in a server that runs for days.
pub fn renew() {
    NOW.store(read(), Relaxed);
}

fn read() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(now).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_stands_still_until_it_is_renewed() {
        let before = now_seconds();
        NOW.store(1, Relaxed);
        assert_eq!((now_seconds(), now_seconds()), (1, 1));
        renew();
        assert!(now_seconds() >= before);
    }
}
