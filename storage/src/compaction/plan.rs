//! Whether a log is to be compacted, how far, and which segments become one. Decides; reads and writes nothing.
//! Invariant: a prefix of the sealed segments, all of it below the high watermark and older than the compaction lag.

use std::ops::Range;
use std::time::Duration;

use madang_actors::clock::Wall;
use madang_protocol::types::Offset;

use crate::config::millis;

/// What of a topic's and the node's configuration the cleaner needs. Names and defaults are Kafka's.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactionSettings {
    /// `min.cleanable.dirty.ratio`: compaction waits until more than this part of the bytes is dirty; 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: records younger than this stay as they are.
    pub min_compaction_lag: Duration,
    /// `max.compaction.lag.ms`: dirty records older than this are compacted whatever the ratio; none is never.
    pub max_compaction_lag: Option<Duration>,
    /// `delete.retention.ms`: how long a tombstone stays after the pass that first met it.
    pub delete_retention: Duration,
    /// `log.cleaner.dedupe.buffer.size`: bytes of memory for the keys of one pass, which goes as far as they reach.
    pub dedupe_buffer_bytes: u64,
    /// For the hash of the keys: a number that clients cannot know.
    pub seed: u64,
}

impl Default for CompactionSettings {
    fn default() -> Self {
        Self {
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag: Duration::ZERO,
            max_compaction_lag: None,
            delete_retention: Duration::from_millis(86_400_000),
            dedupe_buffer_bytes: 128 << 20,
            seed: 0,
        }
    }
}

/// A sealed segment as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
    pub(crate) size: u64,
    /// Highest timestamp in milliseconds, or -1.
    pub(crate) max_timestamp: i64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Decision {
    /// How many segments, oldest first, may be touched.
    pub(crate) segments: usize,
    /// Where the keys are read from.
    pub(crate) first_dirty_offset: Offset,
    /// Their bytes from the first dirty offset on.
    pub(crate) dirty_bytes: u64,
    /// All their bytes.
    pub(crate) total_bytes: u64,
}

impl Decision {
    pub(crate) fn dirty_ratio(&self) -> f64 {
        if self.total_bytes == 0 { 0.0 } else { self.dirty_bytes as f64 / self.total_bytes as f64 }
    }
}

/// What may be compacted now; none if nothing is dirty.
pub(crate) fn cleanable(
    segments: &[SegmentFacts],
    first_dirty_offset: Offset,
    high_watermark: Offset,
    settings: &CompactionSettings,
    wall: Wall,
) -> Option<Decision> {
    let lag = millis(settings.min_compaction_lag);
    let youngest = wall.as_millis().saturating_sub(lag);
    let is_fixed = |segment: &SegmentFacts| {
        let dirty = segment.next_offset > first_dirty_offset;
        segment.next_offset > high_watermark || (dirty && lag > 0 && segment.max_timestamp > youngest)
    };
    let count = segments.iter().position(is_fixed).unwrap_or(segments.len());
    let touched = segments.get(..count).unwrap_or_default();
    let total_bytes = touched.iter().map(|segment| segment.size).sum();
    let dirty = touched.iter().filter(|segment| segment.next_offset > first_dirty_offset);
    let dirty_bytes = dirty.map(|segment| segment.size).sum();
    let decision = Decision { segments: count, first_dirty_offset, dirty_bytes, total_bytes };
    (dirty_bytes > 0).then_some(decision)
}

/// Whether it is time: the dirty part is large enough, or `oldest_dirty` (the lowest timestamp in milliseconds with which a dirty segment
/// begins) is too long ago.
pub(crate) fn is_due(
    decision: &Decision,
    oldest_dirty: Option<i64>,
    settings: &CompactionSettings,
    wall: Wall,
) -> bool {
    let longest = settings.max_compaction_lag.map(|lag| millis(lag.max(settings.min_compaction_lag)));
    let too_old = match (longest, oldest_dirty) {
        (Some(lag), Some(oldest)) => oldest < wall.as_millis().saturating_sub(lag),
        _ => false,
    };
    too_old || decision.dirty_ratio() > settings.min_cleanable_dirty_ratio
}

/// What one segment may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupLimits {
    pub(crate) segment_bytes: u64,
    pub(crate) segment_index_bytes: u64,
    pub(crate) index_interval_bytes: u64,
}

/// Which neighbours become one segment: as many as fit into one by the size they have now.
pub(crate) fn groups(segments: &[SegmentFacts], limits: GroupLimits) -> Vec<Range<usize>> {
    let index_bytes = |size: u64| size / limits.index_interval_bytes.max(1) * 8;
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut size = 0;
    for (at, segment) in segments.iter().enumerate() {
        let first = groups.last().and_then(|group| segments.get(group.start));
        let fits = first.is_some_and(|first| {
            size + segment.size <= limits.segment_bytes
                && index_bytes(size + segment.size) <= limits.segment_index_bytes
                && segment.next_offset - first.base_offset <= i64::from(i32::MAX)
        });
        match groups.last_mut().filter(|_| fits) {
            Some(group) => {
                group.end = at + 1;
                size += segment.size;
            }
            None => {
                groups.push(at..at + 1);
                size = segment.size;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> Vec<SegmentFacts> {
        let segment = |n: i64| SegmentFacts {
            base_offset: Offset(n * 10),
            next_offset: Offset(n * 10 + 10),
            size: 100,
            max_timestamp: n * 1000 + 1000,
        };
        (0..5).map(segment).collect()
    }

    fn decide(dirty: i64, watermark: i64, settings: &CompactionSettings, wall: i64) -> Option<(usize, u64, u64)> {
        cleanable(&segments(), Offset(dirty), Offset(watermark), settings, Wall(wall))
            .map(|found| (found.segments, found.dirty_bytes, found.total_bytes))
    }

    #[test]
    fn only_whole_segments_below_the_high_watermark_are_touched() {
        let settings = CompactionSettings::default();
        assert_eq!(decide(0, 50, &settings, 0), Some((5, 500, 500)));
        assert_eq!(decide(0, 49, &settings, 0), Some((4, 400, 400)));
        assert_eq!(decide(20, 49, &settings, 0), Some((4, 200, 400)));
        assert_eq!(decide(40, 49, &settings, 0), None);
        assert_eq!(decide(0, 9, &settings, 0), None);
    }

    #[test]
    fn young_records_stay() {
        let settings = CompactionSettings { min_compaction_lag: Duration::from_secs(2), ..Default::default() };
        assert_eq!(decide(0, 50, &settings, 5000), Some((3, 300, 300)));
        assert_eq!(decide(0, 50, &settings, 4999), Some((2, 200, 200)));
        assert_eq!(decide(0, 50, &settings, 2999), None);
        // A clean segment was old enough once, whatever the clock says now.
        assert_eq!(decide(20, 50, &settings, 5000), Some((3, 100, 300)));
    }

    #[test]
    fn the_ratio_or_the_age_makes_it_due() {
        let settings = CompactionSettings { max_compaction_lag: Some(Duration::from_secs(10)), ..Default::default() };
        let decision =
            |dirty: i64| cleanable(&segments(), Offset(dirty), Offset(50), &settings, Wall(0)).expect("dirty");
        assert!(is_due(&decision(20), None, &settings, Wall(0)));
        assert!(!is_due(&decision(30), None, &settings, Wall(0)));
        assert!(!is_due(&decision(30), Some(1000), &settings, Wall(11_000)));
        assert!(is_due(&decision(30), Some(1000), &settings, Wall(11_001)));
        let exact = CompactionSettings { min_cleanable_dirty_ratio: 0.6, ..Default::default() };
        assert!(!is_due(&decision(20), None, &exact, Wall(0)), "more than the ratio, not the ratio");
    }

    #[test]
    fn neighbours_are_joined_as_far_as_one_segment_goes() {
        let limits = GroupLimits { segment_bytes: 250, segment_index_bytes: 1 << 20, index_interval_bytes: 10 };
        assert_eq!(groups(&segments(), limits), [0..2, 2..4, 4..5]);
        let index = GroupLimits { segment_index_bytes: 100, ..limits };
        assert_eq!(groups(&segments(), index), [0..1, 1..2, 2..3, 3..4, 4..5]);
        let mut far = segments();
        for (at, segment) in far.iter_mut().enumerate().skip(1) {
            segment.base_offset = Offset(at as i64 * i64::from(i32::MAX));
            segment.next_offset = segment.base_offset + i64::from(i32::MAX);
        }
        assert_eq!(groups(&far, limits).len(), 5);
        assert!(groups(&[], limits).is_empty());
    }
}
