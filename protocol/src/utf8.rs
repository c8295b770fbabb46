//! Text that is not quite UTF-8, read as Kafka reads it: each ill-formed sequence becomes one U+FFFD.
//! Invariant: a sequence ends where Java's decoder ends it, which is not where Rust's does, so that what is echoed is the same to the byte.

use std::borrow::Cow;

/// The text of `bytes`, borrowed if all of it is UTF-8.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    let mut rest = bytes;
    let mut text = String::new();
    loop {
        let valid = match std::str::from_utf8(rest) {
            Ok(valid) if text.is_empty() && rest.len() == bytes.len() => return Cow::Borrowed(valid),
            Ok(valid) => {
                text.push_str(valid);
                return Cow::Owned(text);
            }
            Err(error) => error.valid_up_to(),
        };
        let (valid, broken) = rest.split_at(valid);
        text.push_str(std::str::from_utf8(valid).unwrap_or_default());
        text.push(char::REPLACEMENT_CHARACTER);
        rest = broken.get(ill_formed_length(broken)..).unwrap_or_default();
    }
}

/// How many of the bytes, which do not begin a character, are replaced together: as many as could have begun one, and a surrogate whole.
fn ill_formed_length(bytes: &[u8]) -> usize {
    let first = bytes.first().copied().unwrap_or(0);
    let continues = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let second = bytes.get(1).copied().unwrap_or(0);
    let begins = match first {
        0xe0 => second >= 0xa0,
        0xf0 => second >= 0x90,
        0xf4 => second < 0x90,
        0xf5.. => false,
        _ => true,
    } && continues(1);
    match first {
        0xe0..=0xef if begins && continues(2) => 3,
        0xf0..=0xf4 if begins && continues(2) => 3,
        0xe0..=0xf4 if begins => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_borrowed() {
        assert!(matches!(lossy("a\u{c9}\u{ea88}\u{1f36d}".as_bytes()), Cow::Borrowed(_)));
        assert!(matches!(lossy(b""), Cow::Borrowed("")));
    }

    #[test]
    fn what_is_not_is_replaced_where_java_replaces_it() {
        let cases: &[(&[u8], &str)] = &[
            (b"\xed\xa9\xf0\x9f\x8e\xad", "\u{fffd}\u{1f3ad}"),
            (b"\xed\xa4\x88z", "\u{fffd}z"),
            (b"\xc9\x30\x2e", "\u{fffd}0."),
            (b"\xc0\x80", "\u{fffd}\u{fffd}"),
            (b"\x80\xbf", "\u{fffd}\u{fffd}"),
            (b"\xe0\x9f\x80", "\u{fffd}\u{fffd}\u{fffd}"),
            (b"\xea\x88", "\u{fffd}"),
            (b"\xea\x88a", "\u{fffd}a"),
            (b"\xf0\x9f\x8ea", "\u{fffd}a"),
            (b"\xf0\x9f", "\u{fffd}"),
            (b"\xf0\x8f\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            (b"\xf4\x90\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            (b"\xf9\x80", "\u{fffd}\u{fffd}"),
            (b"a\xff", "a\u{fffd}"),
        ];
        for (bytes, text) in cases {
            assert_eq!(lossy(bytes), *text, "{bytes:02x?}");
        }
    }
}
