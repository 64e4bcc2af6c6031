//! How many requests a client may make: so many per second, and as many at once after a while without. Knows nothing of
//! what they are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Clients that are remembered before those that are entitled to everything again are forgotten.
const REMEMBERED: usize = 4096;

/// A limit for each client.
#[derive(Debug)]
pub struct RateLimit {
    per_second: NonZeroU32,
    /// When each client will have used no more than it is entitled to (the "theoretical arrival time" of the generic cell
    /// rate algorithm, ITU-T I.371).
    clients: Mutex<HashMap<IpAddr, Instant>>,
}

impl RateLimit {
    /// So many requests per second.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, clients: Mutex::default() }
    }

    /// Requests per second.
    pub fn per_second(&self) -> u32 {
        self.per_second.get()
    }

    /// Counts a request.
    ///
    /// # Errors
    /// How long the client has to wait.
    pub fn take(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        const BURST: Duration = Duration::from_secs(1);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= REMEMBERED {
            clients.retain(|_, used_until| *used_until > now);
        }
        let used_until = clients.entry(network(client)).or_insert(now);
        let next = (*used_until).max(now) + BURST / self.per_second.get();
        let ahead = next.duration_since(now);
        if ahead > BURST {
            return Err(ahead - BURST);
        }
        *used_until = next;
        Ok(())
    }
}

/// What counts as one client: an address, or in version 6 all that one network hands out as it likes.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_second: u32) -> RateLimit {
        RateLimit::new(NonZeroU32::new(per_second).unwrap())
    }

    #[test]
    fn a_client_gets_its_rate_and_no_more() {
        let (limit, begin) = (limit(10), Instant::now());
        let [one, other]: [IpAddr; 2] = ["127.0.0.1", "10.0.0.1"].map(|address| address.parse().unwrap());
        assert!((0..10).all(|_| limit.take(one, begin).is_ok()));
        assert_eq!(limit.take(one, begin), Err(Duration::from_millis(100)));
        assert_eq!(limit.take(other, begin), Ok(()), "each has its own");
        let later = begin + Duration::from_millis(100);
        assert_eq!([limit.take(one, later).is_ok(), limit.take(one, later).is_ok()], [true, false]);
        let rested = begin + Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| limit.take(one, rested).is_ok()).count(), 10, "rest is not saved up");
    }

    #[test]
    fn a_network_is_one_client() {
        let (limit, now) = (limit(1), Instant::now());
        let take = |address: &str| limit.take(address.parse().unwrap(), now).is_ok();
        assert!(take("2001:db8::1") && !take("2001:db8::ffff:2") && take("2001:db8:0:1::1"));
        assert!(take("10.0.0.1") && !take("::ffff:10.0.0.1"));
    }

    #[test]
    fn those_who_rest_are_forgotten() {
        let (limit, now) = (limit(1), Instant::now());
        for number in 0..2 * REMEMBERED as u32 {
            let later = now + Duration::from_secs(2 * u64::from(number));
            limit.take(IpAddr::from(number.to_be_bytes()), later).unwrap();
            assert!(limit.clients.lock().unwrap().len() <= REMEMBERED);
        }
    }
}
