//! What a shard may be told to do differently: Kafka's broker keys, and the bounds that Kafka leaves open.

use std::time::Duration;

/// Settings of one group coordinator shard. The defaults are Kafka's where Kafka has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`: the shortest session a member may ask for.
    pub min_session_timeout: Duration,
    /// `group.max.session.timeout.ms`: the longest session a member may ask for.
    pub max_session_timeout: Duration,
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for more members.
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`: members a group may have. Kafka has no bound; ours is 10,000.
    pub max_group_size: usize,
    /// Ids that a group may have given to members that have not joined yet. They are no members, so a lower `group.max.size` is no bound.
    pub max_pending_members: usize,
    /// How long the first join of a member may stay parked.
    pub new_member_join_timeout: Duration,
    /// `offsets.retention.minutes`: how long a committed offset outlives its group's last member or, without members, its commit.
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`: how often expired offsets and empty groups are removed.
    pub offsets_retention_check_interval: Duration,
    /// `offset.metadata.max.bytes`: characters of metadata a committed offset may carry.
    pub offset_metadata_max: usize,
    /// Bytes of protocol names and metadata that one member may bring.
    pub max_member_metadata_bytes: usize,
    /// Protocols that one member may name.
    pub max_member_protocols: usize,
    /// Groups one shard holds; a group beyond it is refused.
    pub max_groups: usize,
    /// Committed offsets one shard holds; a new partition beyond it is refused.
    pub max_offsets: usize,
    /// Appends that may wait for their commit at once; a request that needs one more is refused.
    pub max_appends_in_flight: usize,
    /// Key and value bytes that one append carries at most; the batch limit of `__consumer_offsets` less its framing.
    pub max_append_bytes: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_timeout: Duration::from_secs(6),
            max_session_timeout: Duration::from_secs(1800),
            initial_rebalance_delay: Duration::from_secs(3),
            max_group_size: 10_000,
            max_pending_members: 10_000,
            new_member_join_timeout: Duration::from_secs(300),
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            offsets_retention_check_interval: Duration::from_secs(600),
            offset_metadata_max: 4096,
            max_member_metadata_bytes: 1 << 20,
            max_member_protocols: 1000,
            max_groups: 100_000,
            max_offsets: 5_000_000,
            max_appends_in_flight: 10_000,
            max_append_bytes: 1_000_000,
        }
    }
}
