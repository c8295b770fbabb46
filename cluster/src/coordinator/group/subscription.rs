//! The topics of a consumer's subscription, read from the metadata it brings to the protocol type `consumer`.
//! Invariant: reads only the version and the topic list, both bounded by the bytes there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use madang_protocol::{DecodeError, Reader};

/// The fewest bytes that a topic's name takes: those of its length.
const MIN_TOPIC_BYTES: usize = 2;

/// The topics named in `metadata`. Every version of the schema begins alike, so later ones are read too.
pub(crate) fn topics(metadata: &Bytes) -> Result<BTreeSet<Arc<str>>, DecodeError> {
    let mut reader = Reader::new(metadata);
    let version = reader.read_i16()?;
    if version < 0 {
        return Err(DecodeError::UnsupportedVersion { version });
    }
    let count = reader.read_count(false, MIN_TOPIC_BYTES)?.ok_or(DecodeError::UnexpectedNull)?;
    let topic = |_| reader.read_nullable_str(false)?.map(Arc::from).ok_or(DecodeError::UnexpectedNull);
    (0..count).map(topic).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::topics;

    #[test]
    fn a_subscription_names_its_topics_and_a_lying_count_is_an_error() {
        let good = [0, 1, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 255, 255, 255, 255];
        let topics = |bytes: &[u8]| topics(&Bytes::copy_from_slice(bytes));
        assert_eq!(topics(&good).unwrap().iter().map(|t| &**t).collect::<Vec<_>>(), ["a", "bc"]);
        assert!(topics(&[0, 1, 127, 255, 255, 255]).is_err());
        assert!(topics(&[0, 1, 255, 255, 255, 255]).is_err());
        assert!(topics(&[]).is_err());
    }
}
