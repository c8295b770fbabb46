//! What can go wrong: one enum per operation.
//! Invariant: every error of this crate answers `is_retriable`, and says `true` only where the same call may succeed later.

use std::io;
use std::time::Duration;

use madang_protocol::record_batch::BatchError;
use madang_protocol::{DecodeError, EncodeError, ErrorCode};
use thiserror::Error;

/// The error of this number; one that Kafka does not define counts as `UNKNOWN_SERVER_ERROR`.
pub(crate) fn error_code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

/// `Ok` for code 0.
pub(crate) fn check(code: i16) -> Result<(), ErrorCode> {
    match error_code(code) {
        ErrorCode::None => Ok(()),
        error => Err(error),
    }
}

/// Whether an answer with this error may mean that leader or topic are elsewhere, so that the metadata has to be read again.
pub(crate) const fn is_stale_metadata(code: ErrorCode) -> bool {
    use ErrorCode as E;
    matches!(
        code,
        E::UnknownTopicOrPartition
            | E::LeaderNotAvailable
            | E::NotLeaderOrFollower
            | E::ReplicaNotAvailable
            | E::FencedLeaderEpoch
            | E::UnknownLeaderEpoch
            | E::UnknownTopicId
            | E::InconsistentTopicId
            | E::KafkaStorageError
    )
}

/// A request got no answer, or none that can be read.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// No connection could be opened.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system reports.
        source: io::Error,
    },
    /// No connection could be opened in time.
    #[error("cannot connect to {address} within {timeout:?}")]
    ConnectTimeout {
        /// Host and port.
        address: String,
        /// The limit.
        timeout: Duration,
    },
    /// The broker did not answer in time. Whether it has done what was asked is unknown.
    #[error("{address} did not answer {api} within {timeout:?}")]
    Timeout {
        /// Host and port.
        address: String,
        /// The API called.
        api: &'static str,
        /// The limit.
        timeout: Duration,
    },
    /// The connection ended before the answer came. Whether the broker has done what was asked is unknown.
    #[error("{address} closed the connection during {api}: {source}")]
    Closed {
        /// Host and port.
        address: String,
        /// The API called.
        api: &'static str,
        /// What the system reports.
        source: io::Error,
    },
    /// The broker serves no version of the API that this client knows.
    #[error("{address} does not serve {api} in a version that this client knows")]
    Unsupported {
        /// Host and port.
        address: String,
        /// The API called.
        api: &'static str,
    },
    /// The announced length of an answer is negative or above the limit.
    #[error("{address} announces an answer of {length} bytes")]
    Length {
        /// Host and port.
        address: String,
        /// As announced.
        length: i32,
    },
    /// The answer belongs to another request.
    #[error("{address} answers request {answered} instead of {asked}")]
    Correlation {
        /// Host and port.
        address: String,
        /// The correlation id sent.
        asked: i32,
        /// The one received.
        answered: i32,
    },
    /// The answer is not what the protocol says.
    #[error("the answer to {api} cannot be read: {source}")]
    Decode {
        /// The API called.
        api: &'static str,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The request does not fit the version that the broker serves.
    #[error("{api} cannot be written: {source}")]
    Encode {
        /// The API called.
        api: &'static str,
        /// What does not fit.
        source: EncodeError,
    },
    /// The client was given no address, or the broker of this number is not known.
    #[error("no address is known for {0}")]
    NoAddress(String),
}

impl ConnectionError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::ConnectTimeout { .. }
                | Self::Timeout { .. }
                | Self::Closed { .. }
                | Self::NoAddress(_)
        )
    }

    /// Whether the broker cannot have seen the request.
    #[must_use]
    pub const fn is_unsent(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::ConnectTimeout { .. }
                | Self::Unsupported { .. }
                | Self::Encode { .. }
                | Self::NoAddress(_)
        )
    }
}

/// Brokers, topics or leaders could not be found.
#[derive(Debug, Error)]
pub enum MetadataError {
    /// No broker answered.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The broker answered with an error for the topic.
    #[error("topic {topic}: {code}")]
    Topic {
        /// The topic's name.
        topic: String,
        /// The broker's error.
        code: ErrorCode,
    },
    /// The broker answered with an error for everything.
    #[error("metadata: {0}")]
    Broker(ErrorCode),
    /// The topic has no partition of this number.
    #[error("topic {topic} has no partition {partition}")]
    NoPartition {
        /// The topic's name.
        topic: String,
        /// The partition asked for.
        partition: i32,
    },
    /// The partition has no leader at the moment.
    #[error("partition {partition} of topic {topic} has no leader")]
    NoLeader {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
    },
}

impl MetadataError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Connection(error) => error.is_retriable(),
            Self::Topic { code, .. } | Self::Broker(code) => code.is_retriable(),
            Self::NoPartition { .. } => false,
            Self::NoLeader { .. } => true,
        }
    }

    /// Whether the broker says that there is no such topic.
    #[must_use]
    pub const fn is_unknown_topic(&self) -> bool {
        matches!(self, Self::Topic { code: ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId, .. })
    }
}

/// A record was not written, or it is unknown whether it was.
#[derive(Clone, Debug, Error)]
pub enum ProduceError {
    /// The topic could not be found in time. Nothing was written.
    #[error("{0}")]
    Metadata(std::sync::Arc<MetadataError>),
    /// The broker refused the record's batch. Nothing was written.
    #[error("{topic}-{partition}: {code}{}", detail(message))]
    Broker {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
        /// The broker's error.
        code: ErrorCode,
        /// What the broker says beside it.
        message: Option<String>,
    },
    /// No answer in time, in spite of retries. It is unknown whether the record was written.
    #[error("{topic}-{partition}: not acknowledged within {timeout:?}; the last error was: {last}")]
    Unacknowledged {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
        /// The limit.
        timeout: Duration,
        /// The error of the last try.
        last: String,
    },
    /// The record could not be accepted within [`max_block`](crate::ProducerConfig::max_block). Nothing was written.
    #[error("not accepted within {limit:?}: still waiting for {waiting_for}")]
    Blocked {
        /// The limit.
        limit: Duration,
        /// What was missing.
        waiting_for: &'static str,
    },
    /// The record is larger than the producer's limits, in bytes. Nothing was written.
    #[error("a record of {size} bytes is above the limit of {limit} bytes")]
    TooLarge {
        /// Bytes of the record.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The batch cannot be written: a number does not fit the format, or a codec failed.
    #[error("{0}")]
    Batch(BatchError),
    /// The producer is closed.
    #[error("the producer is closed")]
    Closed,
}

impl ProduceError {
    /// Whether the same record may be accepted later. After `Unacknowledged` it may then be there twice.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Metadata(error) => error.is_retriable(),
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Unacknowledged { .. } | Self::Blocked { .. } => true,
            Self::TooLarge { .. } | Self::Batch(_) | Self::Closed => false,
        }
    }
}

/// Records could not be read.
#[derive(Debug, Error)]
pub enum ConsumeError {
    /// The topic could not be found.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The leader did not answer.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The broker answered with an error.
    #[error("{topic}-{partition}: {code}")]
    Broker {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
        /// The broker's error.
        code: ErrorCode,
    },
    /// The partition is not among those that are read.
    #[error("{topic}-{partition} is not assigned to this consumer")]
    NotAssigned {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// What the broker sent is not a record batch.
    #[error("{topic}-{partition} at offset {offset}: {source}")]
    Batch {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the consumer stands.
        offset: i64,
        /// What is wrong.
        source: BatchError,
    },
}

impl ConsumeError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Metadata(error) => error.is_retriable(),
            Self::Connection(error) => error.is_retriable(),
            Self::Broker { code, .. } => code.is_retriable(),
            Self::NotAssigned { .. } | Self::Batch { .. } => false,
        }
    }
}

/// A member could not join, stay in, or commit for its group.
#[derive(Debug, Error)]
pub enum GroupError {
    /// Records or offsets could not be read.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// A topic of the subscription could not be found.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The coordinator did not answer.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The coordinator answered with an error.
    #[error("group {group}: {code}")]
    Broker {
        /// The group's id.
        group: String,
        /// The broker's error.
        code: ErrorCode,
    },
    /// Another process has joined with this member's instance id. This one is no longer a member.
    #[error("group {group}: another process has taken the instance id {group_instance_id}")]
    Fenced {
        /// The group's id.
        group: String,
        /// The instance id.
        group_instance_id: String,
    },
    /// Another member's subscription, or an assignment, cannot be read.
    #[error("group {group}: what a member sent cannot be read: {source}")]
    Member {
        /// The group's id.
        group: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A message of the consumer protocol cannot be written.
    #[error("group {group}: {source}")]
    Encode {
        /// The group's id.
        group: String,
        /// What does not fit.
        source: EncodeError,
    },
}

impl GroupError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Consume(error) => error.is_retriable(),
            Self::Metadata(error) => error.is_retriable(),
            Self::Connection(error) => error.is_retriable(),
            Self::Broker { code, .. } => code.is_retriable() || means_rejoin(*code),
            Self::Fenced { .. } | Self::Member { .. } | Self::Encode { .. } => false,
        }
    }
}

/// Whether a member that is answered with this error has to join again.
pub(crate) const fn means_rejoin(code: ErrorCode) -> bool {
    use ErrorCode as E;
    matches!(code, E::RebalanceInProgress | E::IllegalGeneration | E::UnknownMemberId | E::MemberIdRequired)
}

/// Whether a coordinator that answers this has done nothing, and the same request may go to another one or be sent later.
pub(crate) const fn is_coordinator_elsewhere(code: ErrorCode) -> bool {
    use ErrorCode as E;
    matches!(code, E::NotCoordinator | E::CoordinatorNotAvailable | E::CoordinatorLoadInProgress)
}

/// An administrative request failed.
#[derive(Debug, Error)]
pub enum AdminError {
    /// No broker answered.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// Topics or leaders could not be found.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Offsets could not be listed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// The broker answered with an error.
    #[error("{what}: {code}{}", detail(message))]
    Broker {
        /// The topic, group or resource.
        what: String,
        /// The broker's error.
        code: ErrorCode,
        /// What the broker says beside it.
        message: Option<String>,
    },
    /// The broker's answer does not mention what was asked for.
    #[error("the broker's answer does not mention {0}")]
    Missing(String),
}

impl AdminError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Connection(error) => error.is_retriable(),
            Self::Metadata(error) => error.is_retriable(),
            Self::Consume(error) => error.is_retriable(),
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Missing(_) => false,
        }
    }

    /// The broker's error, if one came.
    #[must_use]
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. }
            | Self::Metadata(MetadataError::Topic { code, .. } | MetadataError::Broker(code))
            | Self::Consume(ConsumeError::Broker { code, .. }) => Some(*code),
            _ => None,
        }
    }
}

fn detail(message: &Option<String>) -> String {
    message.as_deref().filter(|text| !text.is_empty()).map(|text| format!(" ({text})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_number_is_an_error_and_not_success() {
        assert_eq!(check(0), Ok(()));
        assert_eq!(check(6), Err(ErrorCode::NotLeaderOrFollower));
        assert_eq!(check(i16::MAX), Err(ErrorCode::UnknownServerError));
        assert_eq!(check(i16::MIN), Err(ErrorCode::UnknownServerError));
    }

    #[test]
    fn errors_say_whether_to_try_again() {
        let address = || "b:1".to_owned();
        let refused = ConnectionError::Connect { address: address(), source: io::ErrorKind::ConnectionRefused.into() };
        assert!(refused.is_retriable() && refused.is_unsent());
        let timeout = ConnectionError::Timeout { address: address(), api: "Produce", timeout: Duration::ZERO };
        assert!(timeout.is_retriable() && !timeout.is_unsent());
        assert!(!ConnectionError::Length { address: address(), length: -1 }.is_retriable());
        let broker = |code| ProduceError::Broker { topic: "t".into(), partition: 0, code, message: None };
        assert!(broker(ErrorCode::NotEnoughReplicas).is_retriable());
        assert!(!broker(ErrorCode::MessageTooLarge).is_retriable());
        let group = |code| GroupError::Broker { group: "g".into(), code };
        assert!(group(ErrorCode::RebalanceInProgress).is_retriable());
        assert!(group(ErrorCode::NotCoordinator).is_retriable());
        assert!(!group(ErrorCode::InvalidGroupId).is_retriable());
    }

    #[test]
    fn every_stale_leader_is_also_retriable() {
        for code in ErrorCode::ALL.iter().copied().filter(|code| is_stale_metadata(*code)) {
            assert!(code.is_retriable(), "{code}");
        }
    }
}
