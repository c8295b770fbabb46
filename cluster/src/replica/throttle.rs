//! How fast followers that are not in sync are fed, where an operator has said so, as in Kafka: by a leader (`leader.replication.throttled.rate` for
//! the replicas of `leader.replication.throttled.replicas`), and to a follower (`follower.replication.throttled.rate` and `.replicas`).
//! Invariant: whoever is in sync is never held back. A leader sends no more than one answer beyond what the rate has allowed so far; a follower takes no more
//! than what it has asked for by then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use madang_actors::clock::Mono;

use crate::configs::list_items;

/// How much of unused rate is kept for later.
const SAVED: Duration = Duration::from_secs(1);

/// What is left to send, in bytes, at a moment; below zero after an answer that was larger than what was left.
#[derive(Clone, Copy, Debug)]
struct Level {
    bytes: i128,
    at: Mono,
}

/// The throttle of a node as a leader, or as a follower. One for all its partitions.
#[derive(Debug, Default)]
pub struct Throttle {
    level: Mutex<Option<Level>>,
}

impl Throttle {
    /// Whether a follower may be sent records now, at `rate` bytes a second.
    pub fn has_room(&self, now: Mono, rate: u64) -> bool {
        self.with(now, rate, |level| level.bytes > 0)
    }

    /// When there is room again at `rate` bytes a second, if nothing more comes; none if there is now.
    pub fn room_at(&self, now: Mono, rate: u64) -> Option<Mono> {
        let missing = self.with(now, rate, |level| 1 - level.bytes);
        let wait = u64::try_from(missing).ok().filter(|missing| *missing > 0)?;
        // A microsecond more: what grows in a part of one is not counted.
        let micros = u128::from(wait) * 1_000_000 / u128::from(rate.max(1)) + 1;
        Some(now + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }

    /// Notes what was sent, or taken.
    pub fn sent(&self, now: Mono, rate: u64, bytes: usize) {
        self.with(now, rate, |level| level.bytes -= bytes as i128);
    }

    fn with<T>(&self, now: Mono, rate: u64, of: impl FnOnce(&mut Level) -> T) -> T {
        let most = i128::from(rate) * SAVED.as_millis() as i128 / 1000;
        // No user code runs under the lock, so a poisoned one is still whole.
        let mut known = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let level = known.get_or_insert(Level { bytes: most, at: now });
        let grown = i128::from(rate) * now.saturating_since(level.at).as_micros() as i128 / 1_000_000;
        if grown > 0 {
            (level.bytes, level.at) = (level.bytes + grown, now);
        }
        level.bytes = level.bytes.min(most);
        of(level)
    }
}

/// Whether a list of `PARTITION:BROKER` names this replica; `*` names all.
#[must_use]
pub fn names(list: &str, partition: i32, broker: i32) -> bool {
    let is_it = |item: &str| {
        item.split_once(':').is_some_and(|(left, right)| left.parse() == Ok(partition) && right.parse() == Ok(broker))
    };
    list.trim() == "*" || list_items(list).any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_in_the_long_run_is_the_rate_whatever_one_answer_holds() {
        let throttle = Throttle::default();
        let (mut now, mut sent) = (Mono::ZERO, 0_u64);
        while now < Mono::ZERO + Duration::from_secs(100) {
            if throttle.has_room(now, 1000) {
                throttle.sent(now, 1000, 3500);
                sent += 3500;
            }
            now = now + Duration::from_millis(1);
        }
        assert!((99_000..=105_000).contains(&sent), "{sent}");
        let later = now + Duration::from_hours(1);
        assert!(throttle.has_room(later, 1000));
        throttle.sent(later, 1000, 1000);
        assert!(!throttle.has_room(later, 1000), "no more than a second's worth is saved");
    }

    #[test]
    fn there_is_room_when_it_was_said_and_not_before() {
        let (throttle, start) = (Throttle::default(), Mono::ZERO + Duration::from_secs(5));
        assert_eq!(throttle.room_at(start, 1000), None);
        throttle.sent(start, 1000, 3_000);
        let at = throttle.room_at(start, 1000).expect("two seconds are missing");
        assert_eq!(at.saturating_since(start).as_millis(), 2_001);
        assert!(!throttle.has_room(start + Duration::from_millis(2_000), 1000));
        assert_eq!(throttle.room_at(at, 1000), None);
    }

    #[test]
    fn a_list_names_partitions_on_brokers_or_all() {
        assert!(names("0:1, 12:3", 12, 3) && names("*", 7, 7));
        assert!(!names("0:1,12:3", 12, 1) && !names("", 0, 1) && !names("0:11", 0, 1));
    }
}
