//! What lets the process that comes after one that was killed say that it does not know a connection (RFC 9000, 10.3).
//! Invariant: it is the same in every life of an endpoint, and known to nobody without the key of its certificate.

use std::sync::Arc;

use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;

/// See the file's head.
#[derive(Clone)]
pub(crate) struct Resets {
    tokens: Arc<hmac::Key>,
    connection_ids: u64,
}

impl Resets {
    /// Of an endpoint whose certificate has this key. `instance` sets it apart from others that show the same, none of which can reset its connections.
    pub(crate) fn of(key: &[u8], instance: &str) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derived = |purpose: &str| hmac::sign(&secret, format!("madang {purpose} {instance}").as_bytes());
        let tokens = hmac::Key::new(hmac::HMAC_SHA256, derived("stateless resets").as_ref());
        let ids = derived("connection ids");
        let connection_ids = ids.as_ref().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte));
        Self { tokens: Arc::new(tokens), connection_ids }
    }

    /// What the endpoint is set to.
    pub(crate) fn endpoint(&self) -> EndpointConfig {
        let connection_ids = self.connection_ids;
        let tokens = Arc::clone(&self.tokens);
        let mut config = EndpointConfig::new(tokens);
        // Only connection ids that an earlier life may have given are answered with a reset.
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_ids)));
        config
    }
}
