//! The topics of a consumer's subscription, read from the metadata it brings to the protocol type `consumer`.
//! Invariant: reads only the version and the topic list, both bounded by the bytes there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::coordinator::records::{Cursor, Malformed};

/// The topics named in `metadata`. Every version of the schema begins alike, so later ones are read too.
pub(crate) fn topics(metadata: &[u8]) -> Result<BTreeSet<Arc<str>>, Malformed> {
    let mut reader = Cursor(metadata);
    if reader.i16()? < 0 {
        return Err(Malformed("subscription version"));
    }
    let count = reader.i32()?;
    if count < 0 {
        return Err(Malformed("topic count"));
    }
    // Every topic takes two bytes at least, so a lying count ends at the end of the metadata.
    (0..count).map(|_| reader.string()).collect()
}

#[cfg(test)]
mod tests {
    use super::topics;

    #[test]
    fn a_subscription_names_its_topics_and_a_lying_count_is_an_error() {
        let good = [0, 1, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 255, 255, 255, 255];
        assert_eq!(topics(&good).unwrap().iter().map(|t| &**t).collect::<Vec<_>>(), ["a", "bc"]);
        assert!(topics(&[0, 1, 127, 255, 255, 255]).is_err());
        assert!(topics(&[0, 1, 255, 255, 255, 255]).is_err());
        assert!(topics(&[]).is_err());
    }
}
