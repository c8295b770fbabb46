//! The small values that every layer speaks of.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use speedy::{Readable, Writable};

/// A position in a partition's log. The first record of a log is at offset 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Readable, Writable)]
pub struct Offset(pub i64);

impl Offset {
    /// The start of every log.
    pub const ZERO: Self = Self(0);
    /// Kafka's "no offset".
    pub const NONE: Self = Self(-1);
}

impl Add<i64> for Offset {
    type Output = Self;
    fn add(self, by: i64) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl Sub for Offset {
    type Output = i64;
    fn sub(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a leadership of one partition; every new leader has a higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Readable, Writable)]
pub struct LeaderEpoch(pub i32);

impl LeaderEpoch {
    /// Kafka's "no epoch": nothing is checked against it.
    pub const NONE: Self = Self(-1);
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node of the cluster: Kafka's broker id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Readable, Writable)]
pub struct NodeId(pub i32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 128 bits that name a topic, a directory or a cluster. Printed as Kafka prints them: URL-safe base64 without padding, 22 characters.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Readable, Writable)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// All zeros: Kafka's "no id".
    pub const ZERO: Self = Self([0; 16]);

    /// Whether this is "no id".
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// A version-4 UUID from 128 random bits. Its text does not begin with a hyphen, as Kafka's do not: on a command line it would be taken for an option.
    #[must_use]
    pub const fn from_random(high: u64, low: u64) -> Self {
        let (h, l) = (high.to_be_bytes(), low.to_be_bytes());
        // The six bits of the first character: 62 is the hyphen.
        let first = if h[0] >> 2 == 62 { h[0] & 0x7f } else { h[0] };
        Self([
            first,
            h[1],
            h[2],
            h[3],
            h[4],
            h[5],
            (h[6] & 0x0f) | 0x40,
            h[7],
            (l[0] & 0x3f) | 0x80,
            l[1],
            l[2],
            l[3],
            l[4],
            l[5],
            l[6],
            l[7],
        ])
    }
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        for place in 0..21 {
            let sextet = (bits >> (122 - 6 * place)) as usize & 63;
            write!(f, "{}", BASE64_URL[sextet] as char)?;
        }
        write!(f, "{}", BASE64_URL[(bits as usize & 3) << 4] as char)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 22 characters of URL-safe base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUuid;

impl fmt::Display for InvalidUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 22 characters of URL-safe base64")
    }
}

impl std::error::Error for InvalidUuid {}

impl FromStr for Uuid {
    type Err = InvalidUuid;

    fn from_str(text: &str) -> Result<Self, InvalidUuid> {
        if text.len() != 22 {
            return Err(InvalidUuid);
        }
        let mut bits = 0_u128;
        for (place, byte) in text.bytes().enumerate() {
            let sextet = BASE64_URL.iter().position(|&b| b == byte).ok_or(InvalidUuid)? as u128;
            bits = if place < 21 { bits << 6 | sextet } else { bits << 2 | sextet >> 4 };
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

/// What names a topic for ever: a re-created topic of the same name has another one.
pub type TopicId = Uuid;

/// A partition of a topic, by the topic's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Readable, Writable)]
pub struct TopicPartition {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition's index, from 0.
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::Uuid;

    #[test]
    fn a_uuid_survives_its_text() {
        let id = Uuid(*b"\x00\x01\x02\x03\xfc\xfd\xfe\xff0123456\x79");
        assert_eq!(id.to_string().len(), 22);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(Uuid([0xff; 16]).to_string(), "_____________________w");
    }

    #[test]
    fn no_random_uuid_begins_with_a_hyphen() {
        let firsts =
            (0..=255).map(|first| Uuid::from_random(u64::from_be_bytes([first, 0, 0, 0, 0, 0, 0, 0]), 0).to_string());
        let firsts: std::collections::BTreeSet<char> = firsts.filter_map(|text| text.chars().next()).collect();
        assert_eq!(firsts.len(), 63);
        assert!(!firsts.contains(&'-'));
    }
}
