//! Kafka's error codes, all of them: numbers, names and whether a client may try again.

use std::fmt;

/// What a row of the table says of trying again.
macro_rules! is_retriable {
    (retriable) => {
        true
    };
    (final) => {
        false
    };
}

macro_rules! error_codes {
    ($($variant:ident = $code:literal, $name:literal, $retriable:ident, $message:literal;)*) => {
        /// An error on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $name, "`: ", $message, ".")] $variant = $code,)*
        }

        impl ErrorCode {
            /// All of them, ascending.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The error of this number, if Kafka has one.
            #[must_use]
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Kafka's name for it, in capitals.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it means, as half a sentence.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self {
                    $(Self::$variant => $message,)*
                }
            }

            /// Whether Kafka's clients repeat a request that was answered with it.
            #[must_use]
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$variant => is_retriable!($retriable),)*
                }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", final, "the broker failed in a way it did not expect";
    None = 0, "NONE", final, "no error";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", final, "the offset is outside of the partition's log";
    CorruptMessage = 2, "CORRUPT_MESSAGE", retriable, "the record batch is damaged, or a compacted topic's record has no key";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", retriable, "this broker has no such topic or partition";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", final, "the fetch size is invalid";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", retriable, "the partition has no leader at the moment";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", retriable, "this broker is not the partition's leader, or not its replica";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", retriable, "the request did not complete in time";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", final, "the broker is not available";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", retriable, "the replica is not available";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", final, "a record batch is larger than max.message.bytes";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", final, "the request comes from a controller that has been replaced";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", final, "the metadata of a committed offset is too long";
    NetworkException = 13, "NETWORK_EXCEPTION", retriable, "the connection was lost before the answer came";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", retriable, "the coordinator is still loading its state";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", retriable, "there is no coordinator at the moment";
    NotCoordinator = 16, "NOT_COORDINATOR", retriable, "this broker is not the coordinator";
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", final, "the topic's name is invalid, or the topic may not be used so";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", final, "the record batches are larger than a segment may be";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", retriable, "fewer replicas are in sync than min.insync.replicas demands";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", retriable, "appended, but fewer replicas were in sync than min.insync.replicas demands";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", final, "required acks must be -1, 0 or 1";
    IllegalGeneration = 22, "ILLEGAL_GENERATION", final, "the group is in another generation";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", final, "the member shares no protocol with the group";
    InvalidGroupId = 24, "INVALID_GROUP_ID", final, "the group id is invalid";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", final, "the group has no such member";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", final, "the session timeout is outside of the broker's limits";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", final, "the group is rebalancing: the member has to join again";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", final, "the committed offsets do not fit in one record batch";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", final, "no permission for the topic";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", final, "no permission for the group";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", final, "no permission for the cluster";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", final, "a record's timestamp is too far from the broker's clock";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", final, "the broker does not enable this SASL mechanism";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", final, "the request does not fit the state of the SASL exchange";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", final, "the version of the API is not supported";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", final, "a topic of this name exists";
    InvalidPartitions = 37, "INVALID_PARTITIONS", final, "the number of partitions is invalid";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", final, "the replication factor is below 1 or above the number of brokers";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", final, "the replica assignment is invalid";
    InvalidConfig = 40, "INVALID_CONFIG", final, "the configuration is invalid";
    NotController = 41, "NOT_CONTROLLER", retriable, "this broker is not the controller";
    InvalidRequest = 42, "INVALID_REQUEST", final, "the request contradicts itself or the protocol";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", final, "the topic's record format does not support the request";
    PolicyViolation = 44, "POLICY_VIOLATION", final, "the request violates the broker's policy";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", final, "a sequence number does not follow the one before it";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", final, "a sequence number was used before";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", final, "the producer's epoch is old";
    InvalidTxnState = 48, "INVALID_TXN_STATE", final, "the transaction's state does not allow this";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", final, "the producer id does not belong to the transactional id";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", final, "the transaction timeout is above transaction.max.timeout.ms";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", retriable, "another operation on the transaction is in progress";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", final, "the transaction coordinator that sent the marker has been replaced";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", final, "no permission for the transactional id";
    SecurityDisabled = 54, "SECURITY_DISABLED", final, "security is disabled";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", final, "not attempted, because another part of the request failed";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", retriable, "a disk failed, or the log on it cannot be used";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", final, "the broker has no such log directory";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", final, "authentication failed";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", final, "the broker does not know the producer id";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", final, "a reassignment of the partition is in progress";
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", final, "delegation tokens are disabled";
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", final, "there is no such delegation token";
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", final, "the principal does not own the delegation token";
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", final, "delegation tokens cannot be asked for over this connection";
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", final, "no permission for the delegation token";
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", final, "the delegation token has expired";
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", final, "the principal's type is not supported";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", final, "the group has members";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", final, "there is no such group";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", retriable, "there is no such fetch session";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", retriable, "the epoch of the fetch session is not the next one";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", retriable, "the leader has no listener of this name";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", final, "topic deletion is disabled";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", retriable, "the leader epoch is older than the broker's";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", retriable, "the leader epoch is newer than the broker's";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", final, "the client's version does not support the compression of the records";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", final, "the broker epoch has changed";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", retriable, "the new leader's high watermark is not known to be current yet";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", final, "the member has to join with the id it now has";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", retriable, "the preferred leader is not available";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", final, "the group is full";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", final, "another member has taken this group.instance.id";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", retriable, "no eligible leader is available";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", retriable, "the partition has the leader it should have";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", final, "no reassignment is in progress";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", final, "the group is subscribed to the topic";
    InvalidRecord = 87, "INVALID_RECORD", final, "a record is not valid";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", retriable, "an open transaction has pending offsets";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", retriable, "the quota for changes is exhausted";
    ProducerFenced = 90, "PRODUCER_FENCED", final, "a newer producer has the same transactional id";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", final, "there is no such resource";
    DuplicateResource = 92, "DUPLICATE_RESOURCE", final, "a resource is named twice";
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", final, "the credential is not acceptable";
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", final, "a voter is not one of those expected";
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", final, "the update's version is invalid";
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", final, "the feature's level could not be changed";
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", final, "the forwarded principal cannot be read";
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", final, "there is no such snapshot";
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", final, "the position is outside of the snapshot";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", retriable, "this broker has no topic of this id";
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", final, "a live broker has this id";
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", final, "no broker of this id is registered";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", retriable, "the log belongs to a topic of another id";
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", final, "the request is for another cluster";
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", final, "there is no such transactional id";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", retriable, "the fetch session names topics by name and by id";
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", final, "a replica may not be in the in-sync set";
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", final, "the change was applied, and the partition has another leader now";
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", final, "the offset is in tiered storage";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", final, "the member epoch is fenced: the member has to join anew";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", final, "another member still uses this group.instance.id";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", final, "the group does not support the assignor";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", final, "the member epoch is old: the member has to learn the current one";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", final, "the endpoint is of another type";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", final, "the type of endpoint is not supported";
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", final, "there is no such controller";
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", final, "there is no such telemetry subscription";
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", final, "the telemetry is too large";
    InvalidRegistration = 119, "INVALID_REGISTRATION", final, "the broker's registration is invalid";
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", final, "the transaction has to be aborted";
    InvalidRecordState = 121, "INVALID_RECORD_STATE", final, "the record is not in a state that can be acknowledged";
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", retriable, "there is no such share session";
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", retriable, "the epoch of the share session is not the next one";
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", final, "the share group's state epoch is old";
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", final, "the voter key is not the receiver's";
    DuplicateVoter = 126, "DUPLICATE_VOTER", final, "the voter is in the set of voters";
    VoterNotFound = 127, "VOTER_NOT_FOUND", final, "the voter is not in the set of voters";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", final, "the regular expression is invalid";
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", final, "the client's metadata is too old: it has to bootstrap again";
    StreamsInvalidTopology = 130, "STREAMS_INVALID_TOPOLOGY", final, "the topology is invalid";
    StreamsInvalidTopologyEpoch = 131, "STREAMS_INVALID_TOPOLOGY_EPOCH", final, "the topology epoch is invalid";
    StreamsTopologyFenced = 132, "STREAMS_TOPOLOGY_FENCED", final, "the topology epoch is old";
    ShareSessionLimitReached = 133, "SHARE_SESSION_LIMIT_REACHED", retriable, "there are too many share sessions";
}

impl ErrorCode {
    /// Its number on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether it is no error.
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name(), self.code(), self.message())
    }
}

crate::encode_as!(ErrorCode => i16, |error| error.code(), Self::from_code);

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> Self {
        error.code()
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn numbers_run_from_minus_one_without_a_gap() {
        for (error, code) in ErrorCode::ALL.iter().zip(-1..) {
            assert_eq!(error.code(), code);
            assert_eq!(ErrorCode::from_code(code), Some(*error));
        }
        assert_eq!(ErrorCode::from_code(ErrorCode::ALL.len() as i16 - 1), None);
        assert_eq!(ErrorCode::NotLeaderOrFollower.to_string().split(':').next(), Some("NOT_LEADER_OR_FOLLOWER (6)"));
        assert!(ErrorCode::NotLeaderOrFollower.is_retriable() && !ErrorCode::OffsetOutOfRange.is_retriable());
    }
}
