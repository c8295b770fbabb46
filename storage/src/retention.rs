//! Which segments retention lets go. Decides; deletes nothing.
//! Invariant: only a prefix of the segments, the active one only after all the others, never one that ends above the high watermark.

use std::time::Duration;

use madang_actors::clock::Wall;
use madang_protocol::types::Offset;

use crate::config::millis;
use crate::disk::DiskFile;
use crate::segment::Summary;

/// A segment as retention sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its length in bytes.
    pub size: u64,
    /// The offset that follows it.
    pub next_offset: Offset,
    /// When its newest record is of, in milliseconds: its highest timestamp, or when it was written last if its records have none, as in
    /// Kafka; -1 if neither is known.
    pub newest: i64,
}

impl Candidate {
    /// A segment, by what is known of it and its file.
    pub(crate) fn new(summary: Summary, file: &dyn DiskFile) -> Self {
        let written = || file.modified().map_or(-1, Wall::as_millis);
        let newest = if summary.max_timestamp >= 0 || summary.size == 0 { summary.max_timestamp } else { written() };
        Self { size: summary.size, next_offset: summary.next_offset, newest }
    }
}

/// What decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `retention.ms`.
    pub retention: Option<Duration>,
    /// `retention.bytes`.
    pub retention_bytes: Option<u64>,
    /// Segments that end here or below go whatever their age.
    pub log_start_offset: Offset,
    /// Segments that end above stay.
    pub high_watermark: Offset,
    /// Length of the active segment, which counts towards the size.
    pub active_bytes: u64,
}

/// How many of the segments, oldest first, are to go.
#[must_use]
pub fn deletable(segments: &[Candidate], rules: &Rules, wall: Wall) -> usize {
    let total = segments.iter().map(|segment| segment.size).sum::<u64>() + rules.active_bytes;
    let mut over = rules.retention_bytes.map_or(0, |limit| total.saturating_sub(limit));
    let oldest = rules.retention.map(|retention| wall.as_millis().saturating_sub(millis(retention)));
    let mut count = 0;
    for segment in segments {
        if segment.next_offset > rules.high_watermark {
            break;
        }
        let below_start = segment.next_offset <= rules.log_start_offset;
        // What is not known deletes nothing.
        let too_old = oldest.is_some_and(|oldest| segment.newest >= 0 && segment.newest < oldest);
        let too_much = over >= segment.size && over > 0;
        if !(below_start || too_old || too_much) {
            break;
        }
        over = over.saturating_sub(segment.size);
        count += 1;
    }
    count
}

/// Whether the active segment is past its time too, and all before it goes: then it has to be sealed, and goes with them. So what a topic
/// that nobody writes to any more holds is not kept for ever.
#[must_use]
pub fn active_goes(sealed: &[Candidate], active: Candidate, rules: &Rules, wall: Wall) -> bool {
    let alone = Rules { active_bytes: 0, log_start_offset: Offset(i64::MIN), ..*rules };
    active.size > 0 && deletable(sealed, rules, wall) == sealed.len() && deletable(&[active], &alone, wall) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> Vec<Candidate> {
        (1..=4).map(|n| Candidate { size: 100, next_offset: Offset(n * 10), newest: n * 1000 }).collect()
    }

    fn rules() -> Rules {
        Rules {
            retention: None,
            retention_bytes: None,
            log_start_offset: Offset(0),
            high_watermark: Offset(100),
            active_bytes: 50,
        }
    }

    #[test]
    fn age_counts_from_the_newest_record_of_a_segment() {
        let rules = Rules { retention: Some(Duration::from_millis(500)), ..rules() };
        assert_eq!(deletable(&segments(), &rules, Wall(2500)), 1);
        assert_eq!(deletable(&segments(), &rules, Wall(2501)), 2);
        assert_eq!(deletable(&segments(), &rules, Wall(i64::MAX)), 4);
    }

    #[test]
    fn size_keeps_at_least_the_limit() {
        for (limit, gone) in [(450, 0), (351, 0), (350, 1), (51, 3), (50, 4), (0, 4)] {
            let rules = Rules { retention_bytes: Some(limit), ..rules() };
            assert_eq!(deletable(&segments(), &rules, Wall(0)), gone, "limit {limit}");
        }
    }

    #[test]
    fn nothing_above_the_high_watermark_goes() {
        let rules = Rules { retention_bytes: Some(0), high_watermark: Offset(29), ..rules() };
        assert_eq!(deletable(&segments(), &rules, Wall(0)), 2);
    }

    #[test]
    fn what_lies_below_the_start_goes() {
        let rules = Rules { log_start_offset: Offset(20), ..rules() };
        assert_eq!(deletable(&segments(), &rules, Wall(0)), 2);
    }

    #[test]
    fn the_active_segment_goes_by_its_age_and_only_after_all_others() {
        let active = Candidate { size: 50, next_offset: Offset(50), newest: 5000 };
        let old = Rules { retention: Some(Duration::from_millis(500)), ..rules() };
        assert!(active_goes(&segments(), active, &old, Wall(5501)));
        assert!(active_goes(&[], active, &old, Wall(5501)));
        assert!(!active_goes(&segments(), active, &old, Wall(5500)));
        let (empty, untimed) = (Candidate { size: 0, ..active }, Candidate { newest: -1, ..active });
        assert!(
            !active_goes(&segments(), empty, &old, Wall(9999)) && !active_goes(&segments(), untimed, &old, Wall(9999))
        );
        let confirmed = |high_watermark| Rules { high_watermark: Offset(high_watermark), ..old };
        assert!(active_goes(&segments(), active, &confirmed(50), Wall(9999)));
        assert!(!active_goes(&segments(), active, &confirmed(49), Wall(9999)));
        let below_start = Rules { log_start_offset: Offset(50), ..rules() };
        assert!(!active_goes(&segments(), active, &below_start, Wall(9999)));
        let size = |limit| Rules { retention_bytes: Some(limit), ..rules() };
        assert!(
            active_goes(&segments(), active, &size(0), Wall(0)) && !active_goes(&segments(), active, &size(1), Wall(0))
        );
    }
}
