//! Who guesses at the admin key is slowed down: each address may fail a number
//! of times, and then once in a while. What it presents in between is not
//! looked at.
//!
//! Time comes in as an argument. Memory is bounded: what is forgotten first is
//! the address that has the least held against it.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;

/// Failures at once that are let pass.
const BURST: i64 = 20;
/// Milliseconds after which one more is.
const PAUSE: i64 = 3_000;
/// Most addresses that are remembered.
const MOST: usize = 4_096;

/// The failures of each address.
#[derive(Default)]
pub struct Throttle {
    /// By address: when all of its failures are made up for, in milliseconds.
    settled: Mutex<HashMap<IpAddr, i64>>,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("addresses", &self.settled.lock().len())
            .finish()
    }
}

impl Throttle {
    /// Seconds, rounded up, that an address has to wait before it is listened
    /// to; none if it need not. `now` is in milliseconds. Who comes over the Unix
    /// socket has no address: the file's mode is its gate.
    #[must_use]
    pub fn wait(&self, address: Option<IpAddr>, now: i64) -> Option<i64> {
        let settled = *self.settled.lock().get(&network(address?))?;
        let wait = settled - now - (BURST - 1) * PAUSE;
        (wait > 0).then(|| (wait + 999) / 1_000)
    }

    /// Counts a credential that was wrong. True when it was the last that is
    /// let pass for now.
    pub fn failed(&self, address: Option<IpAddr>, now: i64) -> bool {
        let Some(address) = address.map(network) else {
            return false;
        };
        let mut all = self.settled.lock();
        if all.len() >= MOST && !all.contains_key(&address) {
            make_room(&mut all, now);
        }
        let settled = all.entry(address).or_insert(now);
        *settled = (*settled).max(now) + PAUSE;
        *settled - now > (BURST - 1) * PAUSE
    }
}

/// What is settled goes; if nothing is, what is settled soonest.
fn make_room(all: &mut HashMap<IpAddr, i64>, now: i64) {
    all.retain(|_, settled| *settled > now);
    if all.len() >= MOST {
        let soonest = all.iter().min_by_key(|(_, settled)| **settled);
        if let Some(address) = soonest.map(|(address, _)| *address) {
            all.remove(&address);
        }
    }
}

/// Who has one address of IPv6 has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_may_fail_some_times_and_then_once_in_a_while() {
        let throttle = Throttle::default();
        let (guesser, other) = (address("203.0.113.5"), address("203.0.113.6"));
        for failure in 1..=BURST {
            assert_eq!(throttle.wait(guesser, 1_000), None);
            assert_eq!(throttle.failed(guesser, 1_000), failure == BURST);
        }
        assert_eq!(throttle.wait(guesser, 1_000), Some(3));
        assert_eq!(throttle.wait(guesser, 3_999), Some(1));
        assert_eq!(throttle.wait(other, 1_000), None);
        assert_eq!(throttle.wait(guesser, 4_000), None);
        assert!(throttle.failed(guesser, 4_000));
        assert_eq!(throttle.wait(guesser, 4_001), Some(3));
        // After a quiet time all is as at first.
        assert_eq!(throttle.wait(guesser, 4_000 + BURST * PAUSE), None);
        assert!(!throttle.failed(guesser, 4_000 + BURST * PAUSE));
    }

    #[test]
    fn a_network_of_ipv6_and_an_address_in_either_writing_are_one() {
        let throttle = Throttle::default();
        for i in 0..BURST {
            throttle.failed(address(&format!("2001:db8::{i}:1")), 0);
            throttle.failed(address("::ffff:192.0.2.1"), 0);
        }
        assert!(throttle.wait(address("2001:db8::ffff"), 0).is_some());
        assert!(throttle.wait(address("2001:db8:0:1::1"), 0).is_none());
        assert!(throttle.wait(address("192.0.2.1"), 0).is_some());
        assert_eq!(throttle.wait(None, 0), None);
        assert!(!throttle.failed(None, 0));
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory_nor_free_the_worst_one() {
        let throttle = Throttle::default();
        let worst = address("203.0.113.5");
        for _ in 0..BURST {
            throttle.failed(worst, 0);
        }
        for i in 0..20_000_u32 {
            throttle.failed(Some(IpAddr::V4(i.into())), 0);
        }
        assert_eq!(throttle.settled.lock().len(), MOST);
        assert!(throttle.wait(worst, 0).is_some());
    }
}
