//! The limits of one connection, with their defaults.

use std::time::Duration;

/// Limits of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// `socket.request.max.bytes`: the longest frame, its prefix aside. 100 MiB.
    pub max_request_bytes: usize,
    /// `connections.max.idle.ms`: how long a connection may ask nothing. 10 minutes.
    pub max_idle: Duration,
    /// From a frame's first byte to its last. 60 s.
    pub request_deadline: Duration,
    /// How long an answer may make no progress. 30 s.
    pub write_stall: Duration,
    /// How long a request goes on after its client has gone, so that short work is finished and only parked work is dropped. 250 ms.
    pub gone_grace: Duration,
    /// Requests that are admitted and not answered. 100.
    pub max_in_flight: usize,
    /// Bytes of those requests; a frame above it is admitted alone. 32 MiB.
    pub max_in_flight_bytes: usize,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            max_request_bytes: 100 << 20,
            max_idle: Duration::from_secs(600),
            request_deadline: Duration::from_secs(60),
            write_stall: Duration::from_secs(30),
            gone_grace: Duration::from_millis(250),
            max_in_flight: 100,
            max_in_flight_bytes: 32 << 20,
        }
    }
}
