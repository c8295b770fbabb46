//! How many connections there may be, and how fast they may come. Shared by all listeners.
//! Invariant: loopback is exempt from what is counted per address and per second, so an operator can always come in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Numbers of connections.
#[derive(Clone, Debug)]
pub struct AcceptLimits {
    /// `madang.max.connections`: open at once. 50,000.
    pub total: usize,
    /// Open at once beyond `total` from loopback. 64.
    pub loopback_reserve: usize,
    /// Open at once from one address (IPv6: one /64), loopback exempt. 5,000.
    pub per_ip: usize,
    /// Accepted in a second, loopback exempt. 10,000.
    pub accepts_per_second: u32,
    /// Accepted in a second from one address, loopback exempt. 2,000.
    pub accepts_per_second_per_ip: u32,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            total: 50_000,
            loopback_reserve: 64,
            per_ip: 5_000,
            accepts_per_second: 10_000,
            accepts_per_second_per_ip: 2_000,
        }
    }
}

/// Which limit a connection met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many are open.
    Total,
    /// Too many are open from its address.
    PerIp,
    /// Too many came in this second.
    Rate,
    /// Too many came in this second from its address.
    RatePerIp,
}

/// The count of open connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    limits: AcceptLimits,
    open: usize,
    open_per_ip: HashMap<IpAddr, usize>,
    second: Option<Instant>,
    accepted: u32,
    accepted_per_ip: HashMap<IpAddr, u32>,
}

impl ConnectionLimits {
    /// No connection is open.
    #[must_use]
    pub fn new(limits: AcceptLimits) -> Self {
        Self(Arc::new(Shared { counts: Mutex::new(Counts { limits, ..Counts::default() }) }))
    }

    /// Other numbers, for the connections that come from now on. Those that are open stay.
    pub fn change(&self, limits: AcceptLimits) {
        self.0.counts().limits = limits;
    }

    /// Counts a connection from `address`, until the permit is dropped.
    ///
    /// # Errors
    /// The limit that it met.
    pub fn admit(&self, address: IpAddr, now: Instant) -> Result<ConnectionPermit, Refusal> {
        let key = key_of(address);
        let mut counts = self.0.counts();
        if key.is_loopback() {
            if counts.open >= counts.limits.total.saturating_add(counts.limits.loopback_reserve) {
                return Err(Refusal::Total);
            }
        } else {
            counts.check(key, now)?;
            *counts.open_per_ip.entry(key).or_default() += 1;
        }
        counts.open += 1;
        Ok(ConnectionPermit { shared: Arc::clone(&self.0), key })
    }

    /// Connections that are counted now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.counts().open
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn check(&mut self, key: IpAddr, now: Instant) -> Result<(), Refusal> {
        if self.second.is_none_or(|second| now.saturating_duration_since(second).as_secs() >= 1) {
            self.second = Some(now);
            self.accepted = 0;
            self.accepted_per_ip = HashMap::new();
        }
        let limits = &self.limits;
        if self.open >= limits.total {
            return Err(Refusal::Total);
        }
        if self.open_per_ip.get(&key).is_some_and(|open| *open >= limits.per_ip) {
            return Err(Refusal::PerIp);
        }
        if self.accepted >= limits.accepts_per_second {
            return Err(Refusal::Rate);
        }
        let from_ip = self.accepted_per_ip.entry(key).or_default();
        if *from_ip >= limits.accepts_per_second_per_ip {
            return Err(Refusal::RatePerIp);
        }
        *from_ip += 1;
        self.accepted += 1;
        Ok(())
    }
}

/// One counted connection.
#[derive(Debug)]
pub struct ConnectionPermit {
    shared: Arc<Shared>,
    key: IpAddr,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.shared.counts();
        counts.open -= 1;
        if let Some(open) = counts.open_per_ip.get_mut(&self.key) {
            *open -= 1;
            if *open == 0 {
                counts.open_per_ip.remove(&self.key);
            }
        }
    }
}

/// An IPv6 host owns a whole /64; an IPv4 address may come mapped.
fn key_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn limits() -> ConnectionLimits {
        ConnectionLimits::new(AcceptLimits {
            total: 4,
            loopback_reserve: 1,
            per_ip: 2,
            accepts_per_second: 5,
            accepts_per_second_per_ip: 3,
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let (limits, now) = (limits(), Instant::now());
        let first = limits.admit(address("10.0.0.1"), now).expect("room");
        let _second = limits.admit(address("::ffff:10.0.0.1"), now).expect("room");
        assert_eq!(limits.admit(address("10.0.0.1"), now).err(), Some(Refusal::PerIp));
        drop(first);
        assert!(limits.admit(address("10.0.0.1"), now).is_ok());
        assert_eq!(limits.open(), 1);
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let (limits, now) = (limits(), Instant::now());
        let _held: Vec<_> = ["2001:db8::1", "2001:db8::2"].map(|text| limits.admit(address(text), now)).into();
        assert_eq!(limits.admit(address("2001:db8::ffff:3"), now).err(), Some(Refusal::PerIp));
        assert!(limits.admit(address("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn rates_are_per_second_and_spare_loopback() {
        let (limits, now) = (limits(), Instant::now());
        for _ in 0..3 {
            assert!(limits.admit(address("10.0.0.1"), now).is_ok());
        }
        assert_eq!(limits.admit(address("10.0.0.1"), now).err(), Some(Refusal::RatePerIp));
        assert!(limits.admit(address("10.0.0.2"), now).is_ok());
        assert!(limits.admit(address("10.0.0.3"), now).is_ok());
        assert_eq!(limits.admit(address("10.0.0.4"), now).err(), Some(Refusal::Rate));
        assert!(limits.admit(LOOPBACK, now).is_ok());
        assert!(limits.admit(address("10.0.0.1"), now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn other_numbers_hold_for_those_that_come_next() {
        let (limits, now) = (limits(), Instant::now());
        let _held: Vec<_> = ["10.0.0.1", "10.0.0.2"].map(|text| limits.admit(address(text), now).expect("room")).into();
        limits.change(AcceptLimits { total: 2, ..AcceptLimits::default() });
        assert_eq!(limits.admit(address("10.0.0.3"), now).err(), Some(Refusal::Total));
        limits.change(AcceptLimits { total: 3, ..AcceptLimits::default() });
        assert!(limits.admit(address("10.0.0.3"), now).is_ok());
        assert_eq!(limits.open(), 2);
    }

    #[test]
    fn loopback_has_a_reserve_beyond_the_total() {
        let (limits, now) = (limits(), Instant::now());
        let _held: Vec<_> = (0..4).map(|_| limits.admit(LOOPBACK, now).expect("room")).collect();
        assert_eq!(limits.admit(address("10.0.0.1"), now).err(), Some(Refusal::Total));
        let _reserve = limits.admit(LOOPBACK, now).expect("the reserve");
        assert_eq!(limits.admit(LOOPBACK, now).err(), Some(Refusal::Total));
    }
}
