//! Requests and answers of Kafka's protocol as bytes, for what is sent again and again as it is: the same frames to a broker and to the floor beside it.
//! Invariant: a frame carries its length; what an answer says is read from places that its version and the topic's name fix.

use madang_actors::prng::Prng;

/// Length of a batch's header.
const HEADER: usize = 61;
/// Where a batch's CRC begins to count.
const AFTER_CRC: usize = 21;
/// Length of a value, so that a record is 1 KiB.
const VALUE: usize = 1014;

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left > 0x7f {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// A batch of so many records of about 1 KiB, whose values no codec makes smaller.
#[must_use]
pub fn batch(records: i32, timestamp_ms: i64) -> Vec<u8> {
    let mut prng = Prng::new(1);
    let mut body = Vec::new();
    for delta in 0..records {
        let mut record = vec![0, 0];
        varint(&mut record, i64::from(delta));
        varint(&mut record, -1);
        varint(&mut record, VALUE as i64);
        let end = record.len() + VALUE;
        while record.len() < end {
            record.extend(prng.next_u64().to_le_bytes());
        }
        record.truncate(end);
        // No headers.
        record.push(0);
        varint(&mut body, record.len() as i64);
        body.extend(record);
    }
    let mut tail = Vec::with_capacity(HEADER + body.len());
    tail.extend(0_i16.to_be_bytes());
    tail.extend((records - 1).to_be_bytes());
    tail.extend(timestamp_ms.to_be_bytes());
    tail.extend(timestamp_ms.to_be_bytes());
    // No producer: id, epoch, sequence.
    tail.extend([0xff; 14]);
    tail.extend(records.to_be_bytes());
    tail.extend(body);
    let mut batch = Vec::with_capacity(AFTER_CRC + tail.len());
    batch.extend(0_i64.to_be_bytes());
    batch.extend(((tail.len() + AFTER_CRC - 12) as i32).to_be_bytes());
    batch.extend(0_i32.to_be_bytes());
    batch.push(2);
    batch.extend(crc32c::crc32c(&tail).to_be_bytes());
    batch.extend(tail);
    batch
}

fn frame(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.extend(key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(1_i32.to_be_bytes());
    string(&mut frame, "floor");
    frame.extend(body);
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Produce v3 of one batch to one partition, acks=all.
#[must_use]
pub fn produce(topic: &str, partition: i32, batch: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(batch.len() + 64);
    body.extend((-1_i16).to_be_bytes());
    body.extend((-1_i16).to_be_bytes());
    body.extend(30_000_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend((batch.len() as i32).to_be_bytes());
    body.extend(batch);
    frame(0, 3, &body)
}

/// Length of the answer to [`produce`], its own length included.
#[must_use]
pub fn produce_answer_length(topic: &str) -> usize {
    4 + 4 + 4 + 2 + topic.len() + 4 + 4 + 2 + 8 + 8 + 4
}

/// The error code in an answer to [`produce`], after its length; none if it is too short.
#[must_use]
pub fn produce_error(answer: &[u8], topic: &str) -> Option<i16> {
    number(answer, 4 + 4 + 2 + topic.len() + 4 + 4).map(i16::from_be_bytes)
}

/// Fetch v4 of one partition from an offset on; waits for nothing.
#[must_use]
pub fn fetch(topic: &str, partition: i32, offset: i64, max_bytes: i32) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    body.extend((-1_i32).to_be_bytes());
    body.extend(500_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(max_bytes.to_be_bytes());
    body.push(0);
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend(offset.to_be_bytes());
    body.extend(max_bytes.to_be_bytes());
    frame(1, 4, &body)
}

/// Length of an answer to [`fetch`] up to its records, its own length included.
#[must_use]
pub fn fetch_head_length(topic: &str) -> usize {
    4 + 4 + 4 + 4 + 2 + topic.len() + 4 + 4 + 2 + 8 + 8 + 4 + 4
}

/// Such a head before `records` bytes, all else of it 0.
#[must_use]
pub fn fetch_head(topic: &str, records: usize) -> Vec<u8> {
    let length = fetch_head_length(topic);
    let mut head = vec![0; length];
    head[..4].copy_from_slice(&((length - 4 + records) as i32).to_be_bytes());
    head[length - 4..].copy_from_slice(&(records as i32).to_be_bytes());
    head
}

/// Error code and length of the records that follow a head; none if it is too short, or if it is not all that is before the records.
#[must_use]
pub fn fetched(head: &[u8], topic: &str) -> Option<(i16, usize)> {
    let end = fetch_head_length(topic);
    let total = i32::from_be_bytes(number(head, 0)?);
    let records = i32::from_be_bytes(number(head, end - 4)?);
    let error = i16::from_be_bytes(number(head, end - 26)?);
    let records = usize::try_from(records).ok()?;
    (usize::try_from(total).ok()? == end - 4 + records).then_some((error, records))
}

fn number<const LENGTH: usize>(bytes: &[u8], at: usize) -> Option<[u8; LENGTH]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_says_its_length_and_its_checksum() {
        let batch = batch(127, 1_700_000_000_000);
        assert_eq!(i32::from_be_bytes(number(&batch, 8).expect("a length")) as usize, batch.len() - 12);
        assert_eq!(u32::from_be_bytes(number(&batch, 17).expect("a checksum")), crc32c::crc32c(&batch[AFTER_CRC..]));
        // Every record is a varint of two bytes and as many as it says.
        let (mut at, mut records) = (HEADER, 0);
        while at < batch.len() {
            let length = (usize::from(batch[at] & 0x7f) | usize::from(batch[at + 1]) << 7) >> 1;
            at += 2 + length;
            records += 1;
        }
        assert_eq!((at, records), (batch.len(), 127));
        assert!((127 * 1020..128 * 1024).contains(&batch.len()), "{}", batch.len());
    }

    #[test]
    fn a_frame_says_its_length() {
        let frame = produce("t", 3, b"bytes");
        assert_eq!(i32::from_be_bytes(number(&frame, 0).expect("a length")) as usize, frame.len() - 4);
        assert!(frame.ends_with(b"\0\0\0\x03\0\0\0\x05bytes"));
    }

    #[test]
    fn an_answer_to_produce_has_its_error_behind_the_partition() {
        let mut answer = vec![0; produce_answer_length("topic") - 4];
        assert_eq!(produce_error(&answer, "topic"), Some(0));
        answer[4 + 4 + 7 + 4 + 4 + 1] = 6;
        assert_eq!(produce_error(&answer, "topic"), Some(6));
        assert_eq!(produce_error(&answer[..20], "topic"), None);
    }

    #[test]
    fn a_head_says_what_follows() {
        let mut head = fetch_head("topic", 1 << 20);
        assert_eq!(fetched(&head, "topic"), Some((0, 1 << 20)));
        let error = head.len() - 4 - 4 - 8 - 8 - 1;
        head[error] = 3;
        assert_eq!(fetched(&head, "topic"), Some((3, 1 << 20)));
        // A list of aborted transactions would move what follows.
        head[3] ^= 1;
        assert_eq!(fetched(&head, "topic"), None);
        assert_eq!(fetched(&head[..10], "topic"), None);
    }
}
