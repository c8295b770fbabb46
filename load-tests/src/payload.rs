//! The value of a record of the load: who wrote it, to which key, and a checksum, so that bytes that are damaged or of somewhere else show.
//! Invariant: `decode` answers a payload only for bytes that `encode` made.

use thiserror::Error;

/// Bytes before the filler: the run, the process, the serial, the unique number, the checksum, the length of the key's name.
const HEAD: usize = 8 + 4 + 8 + 8 + 4 + 2;
const CHECKSUM: std::ops::Range<usize> = 28..32;

/// What a record says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Number of the run.
    pub run: u64,
    /// Who wrote it.
    pub process: u32,
    /// Which of its writer's records it is, from 0.
    pub serial: u64,
    /// A number that no other record of the run has.
    pub unique: u64,
    /// The key that it was written to: `topic/partition`.
    pub key: String,
}

/// Why bytes are no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// Fewer bytes than a payload has.
    #[error("short")]
    Short,
    /// The checksum is not that of the bytes.
    #[error("checksum")]
    Checksum,
    /// The name of the key is no text, or longer than the bytes.
    #[error("key")]
    Key,
    /// The filler is not the one that belongs to the serial.
    #[error("filler")]
    Filler,
}

/// The same without what it would take to own it: what a generator writes and reads by the million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Number of the run.
    pub run: u64,
    /// Who wrote it.
    pub process: u32,
    /// Which of its writer's records it is, from 0.
    pub serial: u64,
    /// A number that no other record of the run has.
    pub unique: u64,
    /// The key that it was written to: `topic/partition`.
    pub key: &'a str,
}

impl<'a> Head<'a> {
    /// Bytes before the filler.
    #[must_use]
    pub const fn bytes_before_filler(key: &str) -> usize {
        HEAD + key.len()
    }

    /// Bytes of exactly `size`, or as few as it takes if that is more. `fill` is given the bytes so far and how many there are to be.
    ///
    /// # Panics
    /// The key's name is longer than 65,535 bytes; names of topics are not.
    #[must_use]
    pub fn encode(&self, size: usize, fill: impl FnOnce(&mut Vec<u8>, usize)) -> Vec<u8> {
        let length = u16::try_from(self.key.len()).expect("a name of a key is short");
        let mut bytes = Vec::with_capacity(size.max(HEAD + self.key.len()));
        bytes.extend(self.run.to_be_bytes());
        bytes.extend(self.process.to_be_bytes());
        bytes.extend(self.serial.to_be_bytes());
        bytes.extend(self.unique.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.key.as_bytes());
        if bytes.len() < size {
            fill(&mut bytes, size);
        }
        let checksum = checksum(&bytes);
        bytes[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// What the bytes say, by their checksum, and where the filler begins.
    ///
    /// # Errors
    /// They are not what [`Head::encode`] makes.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, usize), Damage> {
        let head = bytes.get(..HEAD).ok_or(Damage::Short)?;
        let said = u32::from_be_bytes(take(head, CHECKSUM.start)?);
        if checksum(bytes) != said {
            return Err(Damage::Checksum);
        }
        let length = usize::from(u16::from_be_bytes(take(head, 32)?));
        let key = bytes.get(HEAD..HEAD + length).ok_or(Damage::Key)?;
        let key = std::str::from_utf8(key).map_err(|_| Damage::Key)?;
        let (run, process) = (u64::from_be_bytes(take(head, 0)?), u32::from_be_bytes(take(head, 8)?));
        let (serial, unique) = (u64::from_be_bytes(take(head, 12)?), u64::from_be_bytes(take(head, 20)?));
        Ok((Self { run, process, serial, unique, key }, HEAD + length))
    }
}

impl Payload {
    /// Bytes of exactly `size`, or as few as it takes if that is more.
    ///
    /// # Panics
    /// The key's name is longer than 65,535 bytes; names of topics are not.
    #[must_use]
    pub fn encode(&self, size: usize) -> Vec<u8> {
        let Self { run, process, serial, unique, ref key } = *self;
        let filler = filler(serial);
        let fill = |bytes: &mut Vec<u8>, size: usize| bytes.extend((bytes.len()..size).map(&filler));
        Head { run, process, serial, unique, key }.encode(size, fill)
    }

    /// What the bytes say.
    ///
    /// # Errors
    /// They are not what [`Payload::encode`] makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let (head, begin) = Head::decode(bytes)?;
        let filler = filler(head.serial);
        if (begin..bytes.len()).any(|at| bytes[at] != filler(at)) {
            return Err(Damage::Filler);
        }
        let Head { run, process, serial, unique, key } = head;
        Ok(Self { run, process, serial, unique, key: key.to_owned() })
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Damage> {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).ok_or(Damage::Short)
}

/// Of all but the four bytes that hold it.
fn checksum(bytes: &[u8]) -> u32 {
    let (before, rest) = bytes.split_at(CHECKSUM.start.min(bytes.len()));
    crc32c::crc32c_append(crc32c::crc32c(before), rest.get(4..).unwrap_or_default())
}

fn filler(serial: u64) -> impl Fn(usize) -> u8 {
    move |at| (serial.wrapping_mul(31).wrapping_add(at as u64) & 0xff) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Payload {
        Payload { run: 7, process: 2, serial: 300, unique: 9001, key: "numbers/3".to_owned() }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for size in [0, HEAD, 100, 5000] {
            let bytes = payload().encode(size);
            assert!(bytes.len() >= size);
            assert_eq!(Payload::decode(&bytes), Ok(payload()));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_shows() {
        let bytes = payload().encode(120);
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(Payload::decode(&damaged).is_err(), "bit {at}");
        }
        for length in 0..bytes.len() {
            assert!(Payload::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
