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

/// Today's date (UTC).
pub fn today() -> String {
    date_of_day(u64::try_from(read()).unwrap_or(0) / 86_400)
}

/// A time in nanoseconds since 1970 as people read it, to the millisecond (UTC).
pub fn utc(nanoseconds: u64) -> String {
    let (seconds, milliseconds) = (nanoseconds / 1_000_000_000, nanoseconds / 1_000_000 % 1_000);
    let [hours, minutes] = [seconds / 3_600 % 24, seconds / 60 % 60];
    format!("{}T{hours:02}:{minutes:02}:{:02}.{milliseconds:03}Z", date_of_day(seconds / 86_400), seconds % 60)
}

/// The date `days` days after 1970-01-01. The arithmetic is that of Howard Hinnant's `civil_from_days`: years begin in
/// March, so that the leap day is the last.
fn date_of_day(days: u64) -> String {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day + 2) / 153;
    let day = day - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
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

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(1_709_210_096_789_000_000), "2024-02-29T12:34:56.789Z");
    }

    #[test]
    fn dates() {
        let dates = [0, 59, 789, 11_016, 19_782, 20_778].map(date_of_day);
        assert_eq!(dates, ["1970-01-01", "1970-03-01", "1972-02-29", "2000-02-29", "2024-02-29", "2026-11-21"]);
    }
}
