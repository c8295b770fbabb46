//! When each record is to be sent: record n of all is due n intervals after the start, and the producers take turns.
//! Invariant: a producer's due times only depend on the rate and the number of producers, never on answers.

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// When the records of so many producers are due, at a rate of all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    producers: u64,
    per_second: u64,
}

impl Schedule {
    /// At least one producer and one record a second.
    #[must_use]
    pub fn new(producers: u64, per_second: u64) -> Self {
        Self { producers: producers.max(1), per_second: per_second.max(1) }
    }

    /// When record `serial` of a producer is due, in nanoseconds after the start.
    #[must_use]
    pub fn due_at(&self, producer: u64, serial: u64) -> u64 {
        let place = u128::from(serial) * u128::from(self.producers) + u128::from(producer);
        u64::try_from(place * u128::from(SECOND) / u128::from(self.per_second)).unwrap_or(u64::MAX)
    }

    /// The last record of all whose time, rounded down, is not after `now`.
    fn last(&self, now: u64) -> u128 {
        ((u128::from(now) + 1) * u128::from(self.per_second) - 1) / u128::from(SECOND)
    }

    /// How many records of all producers are due at `now`; record n of all is of producer n modulo their number.
    #[must_use]
    pub fn all_due(&self, now: u64) -> u64 {
        u64::try_from(self.last(now) + 1).unwrap_or(u64::MAX)
    }

    /// How many records of a producer are due at `now`.
    #[must_use]
    pub fn due(&self, producer: u64, now: u64) -> u64 {
        let Some(beyond) = self.last(now).checked_sub(u128::from(producer)) else { return 0 };
        u64::try_from(beyond / u128::from(self.producers)).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// When the next record of all is due after `now`, and not sooner than `least` from then: what becomes due at about the same time is sent at once.
    #[must_use]
    pub fn next_tick(&self, now: u64, least: u64) -> u64 {
        let next = (self.last(now) + 1) * u128::from(SECOND) / u128::from(self.per_second);
        u64::try_from(next).unwrap_or(u64::MAX).max(now.saturating_add(least))
    }
}

#[cfg(test)]
mod tests {
    use madang_actors::prng::Prng;

    use super::*;

    #[test]
    fn a_record_is_due_from_its_time_on_and_not_before() {
        let mut prng = Prng::new(1);
        for _ in 0..5000 {
            let schedule = Schedule::new(1 + prng.below(50), 1 + prng.below(3_000_000));
            let (producer, serial) = (prng.below(schedule.producers), prng.below(1_000_000));
            let at = schedule.due_at(producer, serial);
            assert!(schedule.due(producer, at) > serial, "{schedule:?} {producer} {serial}");
            assert!(at == 0 || schedule.due(producer, at - 1) <= serial, "{schedule:?} {producer} {serial}");
        }
    }

    #[test]
    fn all_producers_together_have_the_rate() {
        let schedule = Schedule::new(7, 1000);
        let due: u64 = (0..7).map(|producer| schedule.due(producer, 10 * SECOND - 1)).sum();
        assert_eq!((due, schedule.all_due(10 * SECOND - 1)), (10_000, 10_000));
        assert_eq!(schedule.due_at(0, 0), 0);
        assert_eq!(schedule.due_at(1, 0), 1_000_000);
    }

    #[test]
    fn the_next_tick_is_the_next_due_time_unless_that_is_too_soon() {
        let schedule = Schedule::new(2, 1000);
        assert_eq!(schedule.next_tick(0, 1), 1_000_000);
        assert_eq!(schedule.next_tick(1_500_000, 1), 2_000_000);
        assert_eq!(Schedule::new(1, 1_000_000).next_tick(0, 100_000), 100_000);
    }
}
