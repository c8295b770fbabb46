//! Parts of proposals and outcomes that speedy cannot derive: shared strings, and enums of other crates.

use std::collections::BTreeMap;
use std::sync::Arc;

use madang_protocol::encode_as;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{TopicId, Uuid};
use madang_storage::RestartKind;

use crate::controller::{ApiError, CreatedTopic, DeletedTopic, LogDirStart};
use crate::metadata::{Endpoint, SecurityProtocol};

/// The kinds of restarts by their number on the wire.
const RESTART_KINDS: [RestartKind; 4] =
    [RestartKind::Clean, RestartKind::Durable, RestartKind::SameBoot, RestartKind::Lossy];

const fn restart_code(kind: RestartKind) -> u8 {
    match kind {
        RestartKind::Clean => 0,
        RestartKind::Durable => 1,
        RestartKind::SameBoot => 2,
        RestartKind::Lossy => 3,
    }
}

encode_as!(
    ApiError => (ErrorCode, Option<String>),
    |refused| (refused.error, refused.message.as_deref().map(str::to_owned)),
    |(error, message)| Some(Self { error, message: message.map(Arc::from) })
);

encode_as!(
    CreatedTopic => (TopicId, i32, i16, BTreeMap<String, String>),
    |topic| {
        let configs = topic.configs.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        (topic.topic_id, topic.partitions, topic.replication_factor, configs.collect())
    },
    |(topic_id, partitions, replication_factor, configs)| {
        let configs = configs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Some(Self { topic_id, partitions, replication_factor, configs })
    }
);

encode_as!(
    DeletedTopic => (String, TopicId),
    |topic| (topic.name.to_string(), topic.topic_id),
    |(name, topic_id)| Some(Self { name: name.into(), topic_id })
);

encode_as!(
    LogDirStart => (Uuid, u8, i64),
    |start| (start.directory, restart_code(start.kind), start.broker_epoch),
    |(directory, code, broker_epoch)| {
        Some(Self { directory, kind: *RESTART_KINDS.get(usize::from(code))?, broker_epoch })
    }
);

encode_as!(
    Endpoint => (String, String, u16, i16),
    |endpoint| {
        let (listener, host) = (endpoint.listener.to_string(), endpoint.host.to_string());
        (listener, host, endpoint.port, endpoint.security_protocol.code())
    },
    |(listener, host, port, code)| {
        let security_protocol = SecurityProtocol::from_code(code)?;
        Some(Self { listener: listener.into(), host: host.into(), port, security_protocol })
    }
);
