//! What QUIC between nodes is set to.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// The largest datagram that is tried. Ten of them go to the kernel in one call, and above 6,500 bytes they no longer fit into it.
const MTU: u16 = 6_500;
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Limits and deadlines of the links between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicSettings {
    /// Longest frame, in bytes: its head and its payload. What announces more is cut off.
    pub max_frame_bytes: usize,
    /// Longest head of a frame, in bytes.
    pub max_head_bytes: usize,
    /// Requests of one lane that have no answer yet; whoever asks more waits.
    pub in_flight: usize,
    /// Lanes that one peer may hold open.
    pub max_lanes: u32,
    /// A frame whose first byte is there and whose last is not after so long ends its lane.
    pub frame_timeout: Duration,
    /// A call without an answer after so long fails.
    pub call_timeout: Duration,
    /// A handshake, the first answer of the peer included, may take so long.
    pub connect_timeout: Duration,
    /// A peer that is silent for so long is gone.
    pub idle_timeout: Duration,
    /// An idle link is heard from this often.
    pub keep_alive: Duration,
    /// The first wait before a lost link is made again; it doubles, with jitter.
    pub back_off: Duration,
    /// The longest.
    pub back_off_max: Duration,
    /// Peers, strangers included, that may be connected at once.
    pub max_connections: usize,
}

impl Default for QuicSettings {
    fn default() -> Self {
        Self {
            max_frame_bytes: 64 << 20,
            max_head_bytes: 4 << 20,
            in_flight: 32,
            max_lanes: 64,
            frame_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(1),
            back_off: Duration::from_millis(50),
            back_off_max: Duration::from_secs(2),
            max_connections: 1_000,
        }
    }
}

impl QuicSettings {
    pub(crate) fn transport(&self) -> Arc<TransportConfig> {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(MTU);
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(self.max_lanes))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
            .send_window(u64::from(CONNECTION_WINDOW))
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(Some(self.keep_alive))
            .mtu_discovery_config(Some(discovery));
        Arc::new(config)
    }
}
