//! The APIs that Madang knows: one table. What is not in it is refused, and advertised is exactly what it says.

use crate::schema::Versions;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// The API.
    pub key: ApiKey,
    /// Kafka's name for it.
    pub name: &'static str,
    /// The versions that are answered.
    pub served: Versions,
    /// The lowest version that ApiVersions names; the highest is the highest served.
    pub advertised_min: i16,
    /// The first version with compact lengths and tagged fields, in the header too.
    pub first_flexible: i16,
}

/// No version of the API is flexible.
const NEVER: i16 = i16::MAX;

macro_rules! apis {
    ($($(#[$doc:meta])* $key:ident = $number:literal, served $min:literal to $max:literal, advertised from $advertised:literal, flexible from $flexible:expr;)*) => {
        /// An API, by its number on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($(#[$doc])* $key = $number,)*
        }

        impl ApiKey {
            /// All of them, ascending.
            pub const ALL: &[Self] = &[$(Self::$key),*];

            /// Its row of the table.
            #[must_use]
            pub const fn api(self) -> Api {
                match self {
                    $(Self::$key => Api {
                        key: self,
                        name: stringify!($key),
                        served: Versions { min: $min, max: $max },
                        advertised_min: $advertised,
                        first_flexible: $flexible,
                    },)*
                }
            }

            /// The API of this number, if Madang knows it.
            #[must_use]
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($number => Some(Self::$key),)*
                    _ => None,
                }
            }
        }
    };
}

apis! {
    /// Appends record batches. Advertised from 0 because librdkafka before 2.11 stops compressing otherwise (KAFKA-18659).
    Produce = 0, served 3 to 13, advertised from 0, flexible from 9;
    /// Reads record batches.
    Fetch = 1, served 4 to 18, advertised from 4, flexible from 12;
    /// Finds offsets by time.
    ListOffsets = 2, served 1 to 10, advertised from 1, flexible from 6;
    /// Brokers, topics and leaders.
    Metadata = 3, served 0 to 13, advertised from 0, flexible from 9;
    /// Stores consumed offsets.
    OffsetCommit = 8, served 2 to 9, advertised from 2, flexible from 8;
    /// Committed offsets.
    OffsetFetch = 9, served 1 to 9, advertised from 1, flexible from 6;
    /// The coordinator of a group.
    FindCoordinator = 10, served 0 to 5, advertised from 0, flexible from 3;
    /// Enters a classic group.
    JoinGroup = 11, served 0 to 9, advertised from 0, flexible from 6;
    /// Keeps a member alive.
    Heartbeat = 12, served 0 to 4, advertised from 0, flexible from 4;
    /// Leaves a classic group.
    LeaveGroup = 13, served 0 to 5, advertised from 0, flexible from 4;
    /// Distributes an assignment.
    SyncGroup = 14, served 0 to 5, advertised from 0, flexible from 4;
    /// State and members of groups.
    DescribeGroups = 15, served 0 to 6, advertised from 0, flexible from 5;
    /// The groups of a broker.
    ListGroups = 16, served 0 to 5, advertised from 0, flexible from 3;
    /// What is in this table. Its response header is never flexible.
    ApiVersions = 18, served 0 to 4, advertised from 0, flexible from 3;
    /// Creates topics.
    CreateTopics = 19, served 2 to 7, advertised from 2, flexible from 5;
    /// Deletes topics.
    DeleteTopics = 20, served 1 to 6, advertised from 1, flexible from 4;
    /// Deletes the oldest records.
    DeleteRecords = 21, served 0 to 2, advertised from 0, flexible from 2;
    /// Gives a producer its id.
    InitProducerId = 22, served 0 to 5, advertised from 0, flexible from 2;
    /// Where a leader epoch ended.
    OffsetForLeaderEpoch = 23, served 2 to 4, advertised from 2, flexible from 4;
    /// Reads configuration.
    DescribeConfigs = 32, served 1 to 4, advertised from 1, flexible from 4;
    /// Replaces configuration.
    AlterConfigs = 33, served 0 to 2, advertised from 0, flexible from 2;
    /// Log directories and what is in them.
    DescribeLogDirs = 35, served 1 to 5, advertised from 1, flexible from 2;
    /// Adds partitions.
    CreatePartitions = 37, served 0 to 3, advertised from 0, flexible from 2;
    /// Deletes groups.
    DeleteGroups = 42, served 0 to 2, advertised from 0, flexible from 2;
    /// Makes preferred or unclean leaders lead.
    ElectLeaders = 43, served 0 to 2, advertised from 0, flexible from 2;
    /// Changes configuration keys.
    IncrementalAlterConfigs = 44, served 0 to 1, advertised from 0, flexible from 1;
    /// Moves partitions to other brokers.
    AlterPartitionReassignments = 45, served 0 to 1, advertised from 0, flexible from 0;
    /// Replica moves in progress.
    ListPartitionReassignments = 46, served 0 to 0, advertised from 0, flexible from 0;
    /// Deletes committed offsets.
    OffsetDelete = 47, served 0 to 0, advertised from 0, flexible from NEVER;
    /// The voters of the metadata log.
    DescribeQuorum = 55, served 0 to 2, advertised from 0, flexible from 0;
    /// The cluster and its brokers.
    DescribeCluster = 60, served 0 to 2, advertised from 0, flexible from 0;
    /// Forgets a broker.
    UnregisterBroker = 64, served 0 to 0, advertised from 0, flexible from 0;
    /// Topics and their partitions, in pages.
    DescribeTopicPartitions = 75, served 0 to 0, advertised from 0, flexible from 0;
}

impl ApiKey {
    /// Its number on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.api().name
    }

    /// The versions that are answered.
    #[must_use]
    pub const fn served(self) -> Versions {
        self.api().served
    }

    /// The versions that ApiVersions names.
    #[must_use]
    pub const fn advertised(self) -> Versions {
        let Api { served, advertised_min, .. } = self.api();
        Versions { min: advertised_min, max: served.max }
    }

    /// Whether `version` has compact lengths and tagged fields.
    #[must_use]
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.api().first_flexible
    }

    /// The version of the request's header: 1 or 2.
    #[must_use]
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the response's header: 0 or 1. ApiVersions always has 0, as its client may not know a later one yet.
    #[must_use]
    pub const fn response_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) && !matches!(self, Self::ApiVersions) { 1 } else { 0 }
    }
}
