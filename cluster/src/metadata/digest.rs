//! The hash of digests: FNV-1a of 64 bits, the same on every machine and in every build.

use std::hash::{Hash, Hasher};

use super::image::MetadataImage;

/// FNV-1a. Numbers are hashed as little-endian bytes whatever the machine's order.
#[derive(Clone, Debug)]
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u16(&mut self, number: u16) {
        self.write(&number.to_le_bytes());
    }

    fn write_u32(&mut self, number: u32) {
        self.write(&number.to_le_bytes());
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

impl MetadataImage {
    /// A canonical hash of the whole image: equal images, equal digests.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = Fnv::default();
        (self.cluster_id, self.version, self.next_broker_epoch, self.next_producer_id).hash(&mut hasher);
        for (id, topic) in &self.topics {
            (id, &**topic).hash(&mut hasher);
        }
        for tombstone in self.tombstone_order.values() {
            tombstone.hash(&mut hasher);
        }
        for (resource, config) in &self.configs {
            (resource, &**config).hash(&mut hasher);
        }
        for broker in self.brokers.values() {
            broker.hash(&mut hasher);
        }
        for default in &self.defaults {
            default.hash(&mut hasher);
        }
        for address in &self.quorum_addresses {
            address.hash(&mut hasher);
        }
        hasher.finish()
    }
}
