//! Kafka's names of librdkafka's error codes, as histories have them.
//! Invariant: a code that is not in the table keeps a name that the checker does not know, so that the run is rejected and not judged.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// The name of the error.
pub(crate) fn name(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| format!("{error:?}"), of_code)
}

fn of_code(code: Code) -> String {
    let known = match code {
        Code::BrokerTransportFailure => "_TRANSPORT",
        Code::Resolve => "_RESOLVE",
        Code::MessageTimedOut => "_MSG_TIMED_OUT",
        Code::UnknownPartition => "_UNKNOWN_PARTITION",
        Code::UnknownTopic => "_UNKNOWN_TOPIC",
        Code::AllBrokersDown => "_ALL_BROKERS_DOWN",
        Code::OperationTimedOut => "_TIMED_OUT",
        Code::QueueFull => "_QUEUE_FULL",
        Code::WaitingForCoordinator => "_WAIT_COORD",
        Code::NoOffset => "_NO_OFFSET",
        Code::TimedOutQueue => "_TIMED_OUT_QUEUE",
        Code::PurgeQueue => "_PURGE_QUEUE",
        Code::PurgeInflight => "_PURGE_INFLIGHT",
        Code::Fatal => "_FATAL",
        Code::GaplessGuarantee => "_GAPLESS_GUARANTEE",
        Code::Inconsistent => "_INCONSISTENT",
        Code::BrokerDestroy | Code::DestroyBroker => "_DESTROY",
        Code::AssignmentLost => "_ASSIGNMENT_LOST",
        Code::Unknown => "UNKNOWN_SERVER_ERROR",
        Code::UnknownTopicOrPartition => "UNKNOWN_TOPIC_OR_PARTITION",
        Code::LeaderNotAvailable => "LEADER_NOT_AVAILABLE",
        Code::NotLeaderForPartition => "NOT_LEADER_OR_FOLLOWER",
        Code::RequestTimedOut => "REQUEST_TIMED_OUT",
        Code::NetworkException => "NETWORK_EXCEPTION",
        Code::CoordinatorLoadInProgress => "COORDINATOR_LOAD_IN_PROGRESS",
        Code::CoordinatorNotAvailable => "COORDINATOR_NOT_AVAILABLE",
        Code::NotCoordinator => "NOT_COORDINATOR",
        Code::NotEnoughReplicas => "NOT_ENOUGH_REPLICAS",
        Code::NotEnoughReplicasAfterAppend => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        Code::IllegalGeneration => "ILLEGAL_GENERATION",
        Code::UnknownMemberId => "UNKNOWN_MEMBER_ID",
        Code::RebalanceInProgress => "REBALANCE_IN_PROGRESS",
        Code::KafkaStorageError => "KAFKA_STORAGE_ERROR",
        Code::FencedLeaderEpoch => "FENCED_LEADER_EPOCH",
        Code::UnknownLeaderEpoch => "UNKNOWN_LEADER_EPOCH",
        Code::OffsetNotAvailable => "OFFSET_NOT_AVAILABLE",
        Code::OutOfOrderSequenceNumber => "OUT_OF_ORDER_SEQUENCE_NUMBER",
        other => return format!("{other:?}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_load_tests::history::certainty;

    #[test]
    fn a_named_error_is_classified_and_another_is_not() {
        for code in
            [Code::MessageTimedOut, Code::NotLeaderForPartition, Code::KafkaStorageError, Code::IllegalGeneration]
        {
            assert!(certainty(&of_code(code)).is_some(), "{code:?}");
        }
        assert_eq!(certainty(&of_code(Code::BadMessage)), None);
        assert_eq!(certainty(&of_code(Code::AutoOffsetReset)), None);
    }
}
