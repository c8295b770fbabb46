//! Writing records.

/// Zigzag varint, as records have it, for 32 and 64 bits alike.
fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn varlong_size(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    ((70 - (zigzag | 1).leading_zeros() as usize).max(7)) / 7
}

fn nullable_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varlong_size(bytes.len() as i64) + bytes.len())
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varlong(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// Appends a record to `out`; `None`, and nothing is written, if it would be longer than a record's length can say.
pub(crate) fn write_record<'h>(
    out: &mut Vec<u8>,
    offset_delta: i32,
    timestamp_delta: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
) -> Option<()> {
    let (mut count, mut headers_size) = (0_i64, 0_usize);
    for (key, value) in headers.clone() {
        count += 1;
        headers_size += nullable_size(Some(key)) + nullable_size(value);
    }
    let size = 1
        + varlong_size(timestamp_delta)
        + varlong_size(i64::from(offset_delta))
        + nullable_size(key)
        + nullable_size(value)
        + varlong_size(count)
        + headers_size;
    let length = i32::try_from(size).ok()?;
    out.reserve(size + 5);
    put_varlong(out, i64::from(length));
    out.push(0);
    put_varlong(out, timestamp_delta);
    put_varlong(out, i64::from(offset_delta));
    put_nullable(out, key);
    put_nullable(out, value);
    put_varlong(out, count);
    for (key, value) in headers {
        put_nullable(out, Some(key));
        put_nullable(out, value);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{put_varlong, varlong_size};

    #[test]
    fn the_size_of_a_number_is_what_it_takes() {
        for shift in 0..64 {
            for near in [-1, 0, 1] {
                for value in [(1_i64 << shift).wrapping_add(near), (-1_i64 << shift).wrapping_add(near)] {
                    let mut out = Vec::new();
                    put_varlong(&mut out, value);
                    assert_eq!(out.len(), varlong_size(value), "{value}");
                }
            }
        }
    }
}
