//! Which errors say that nothing happened, and which leave it open.
//! Invariant: an error that is not in the table is unknown, and a history that holds one is not judged.

/// What an error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// It did not happen and will not.
    Definite,
    /// It may have happened, or may still.
    Indefinite,
}

/// By Kafka's names, and in small letters librdkafka's own.
const ERRORS: &[(&str, Certainty)] = &[
    ("REQUEST_TIMED_OUT", Certainty::Indefinite),
    ("NETWORK_EXCEPTION", Certainty::Indefinite),
    ("NOT_LEADER_OR_FOLLOWER", Certainty::Indefinite),
    ("LEADER_NOT_AVAILABLE", Certainty::Indefinite),
    ("UNKNOWN_SERVER_ERROR", Certainty::Indefinite),
    ("NOT_ENOUGH_REPLICAS_AFTER_APPEND", Certainty::Indefinite),
    ("KAFKA_STORAGE_ERROR", Certainty::Indefinite),
    ("COORDINATOR_NOT_AVAILABLE", Certainty::Indefinite),
    ("COORDINATOR_LOAD_IN_PROGRESS", Certainty::Indefinite),
    ("NOT_COORDINATOR", Certainty::Indefinite),
    ("FENCED_LEADER_EPOCH", Certainty::Indefinite),
    ("UNKNOWN_LEADER_EPOCH", Certainty::Indefinite),
    ("OFFSET_NOT_AVAILABLE", Certainty::Indefinite),
    ("_TIMED_OUT", Certainty::Indefinite),
    ("_MSG_TIMED_OUT", Certainty::Indefinite),
    ("_TIMED_OUT_QUEUE", Certainty::Indefinite),
    ("_TRANSPORT", Certainty::Indefinite),
    ("_ALL_BROKERS_DOWN", Certainty::Indefinite),
    ("_RESOLVE", Certainty::Indefinite),
    ("_WAIT_COORD", Certainty::Indefinite),
    ("_DESTROY", Certainty::Indefinite),
    ("_PURGE_INFLIGHT", Certainty::Indefinite),
    ("_FATAL", Certainty::Indefinite),
    ("_GAPLESS_GUARANTEE", Certainty::Indefinite),
    ("_INCONSISTENT", Certainty::Indefinite),
    ("_NO_OFFSET", Certainty::Definite),
    ("_PURGE_QUEUE", Certainty::Definite),
    ("_QUEUE_FULL", Certainty::Definite),
    ("_ASSIGNMENT_LOST", Certainty::Definite),
    ("_UNKNOWN_PARTITION", Certainty::Definite),
    ("_UNKNOWN_TOPIC", Certainty::Definite),
    ("INVALID_TOPIC_EXCEPTION", Certainty::Definite),
    ("UNKNOWN_TOPIC_OR_PARTITION", Certainty::Definite),
    ("TOPIC_AUTHORIZATION_FAILED", Certainty::Definite),
    ("CLUSTER_AUTHORIZATION_FAILED", Certainty::Definite),
    ("GROUP_AUTHORIZATION_FAILED", Certainty::Definite),
    ("MESSAGE_TOO_LARGE", Certainty::Definite),
    ("INVALID_RECORD", Certainty::Definite),
    ("INVALID_PRODUCER_EPOCH", Certainty::Definite),
    ("PRODUCER_FENCED", Certainty::Definite),
    ("OUT_OF_ORDER_SEQUENCE_NUMBER", Certainty::Definite),
    ("NOT_ENOUGH_REPLICAS", Certainty::Definite),
    ("ILLEGAL_GENERATION", Certainty::Definite),
    ("UNKNOWN_MEMBER_ID", Certainty::Definite),
    ("REBALANCE_IN_PROGRESS", Certainty::Definite),
    ("OFFSET_OUT_OF_RANGE", Certainty::Definite),
    ("CORRUPT_MESSAGE", Certainty::Definite),
];

/// What the error says; none if it is not known here.
#[must_use]
pub fn certainty(error: &str) -> Option<Certainty> {
    ERRORS.iter().find(|(name, _)| *name == error).map(|(_, certainty)| *certainty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_leader_leaves_it_open_and_too_few_replicas_before_the_append_do_not() {
        assert_eq!(certainty("NOT_LEADER_OR_FOLLOWER"), Some(Certainty::Indefinite));
        assert_eq!(certainty("NOT_ENOUGH_REPLICAS"), Some(Certainty::Definite));
        assert_eq!(certainty("NOT_ENOUGH_REPLICAS_AFTER_APPEND"), Some(Certainty::Indefinite));
        assert_eq!(certainty("SOMETHING_NEW"), None);
    }

    #[test]
    fn every_error_has_one_row() {
        for (place, (name, _)) in ERRORS.iter().enumerate() {
            assert!(ERRORS[..place].iter().all(|(other, _)| other != name), "{name}");
        }
    }
}
