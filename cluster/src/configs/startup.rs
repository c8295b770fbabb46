//! What must be right among a broker's settings as a whole before it starts: what it is asked for can be done, and clients can reach it.
//! Invariant: nothing that would be left out in silence passes.

use super::broker::{BrokerConfig, BrokerConfigError};
use super::definition::{InvalidConfig, list_items, topic_definition};
use super::{nodes, quic};
use crate::metadata::SecurityProtocol;

/// Keys that name a class to guard the broker with. None can be loaded here, and without it everything would be allowed.
const GUARDS: [&str; 4] = [
    "alter.config.policy.class.name",
    "authorizer.class.name",
    "client.quota.callback.class",
    "create.topic.policy.class.name",
];
const ROLES: &str = "process.roles";
/// The key that names how a consumer's replica is chosen.
pub(super) const SELECTOR: &str = "replica.selector.class";
/// Kafka's name of the choice by rack.
pub(super) const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
/// Kafka's name of what is done anyway.
const LEADER: &str = "org.apache.kafka.common.replica.LeaderSelector";
const TIERED: &str = "remote.log.storage.system.enable";
/// Keys that give an internal topic its `segment.bytes`.
const INTERNAL_SEGMENTS: [&str; 2] = ["offsets.topic.segment.bytes", "transaction.state.log.segment.bytes"];

/// Whether a key without a description is one that a start looks at: what it asks for is so, or the broker does not start.
pub(super) fn acts_on(key: &str) -> bool {
    GUARDS.contains(&key) || [ROLES, TIERED].contains(&key)
}

/// Checks settings that are each valid alone.
pub(super) fn check(config: &BrokerConfig) -> Result<(), BrokerConfigError> {
    supported(config)?;
    listeners(config)?;
    nodes::check(config)?;
    quic::check(config.quic.as_ref(), &config.listeners)?;
    INTERNAL_SEGMENTS.into_iter().try_for_each(|key| internal_segments(config, key))
}

fn supported(config: &BrokerConfig) -> Result<(), BrokerConfigError> {
    let refuse = |key: &'static str, value: &str| Err(BrokerConfigError::Unsupported { key, value: value.to_owned() });
    if let Some(value) = config.set_value(TIERED).filter(|value| value.eq_ignore_ascii_case("true")) {
        return refuse(TIERED, value);
    }
    for key in GUARDS {
        if let Some(value) = config.set_value(key).filter(|value| !value.is_empty()) {
            return refuse(key, value);
        }
    }
    let known = |value: &&str| value.is_empty() || [RACK_AWARE, LEADER].contains(value);
    if let Some(value) = config.set_value(SELECTOR).filter(|value| !known(value)) {
        return refuse(SELECTOR, value);
    }
    // A node of one role would have to find the others of its cluster; alone it would be another cluster.
    let lacks = |value: &&str| !["broker", "controller"].iter().all(|role| list_items(value).any(|item| item == *role));
    match config.set_value(ROLES).filter(|value| !value.is_empty()).filter(lacks) {
        Some(value) => refuse(ROLES, value),
        None => Ok(()),
    }
}

fn listeners(config: &BrokerConfig) -> Result<(), BrokerConfigError> {
    if config.listeners.is_empty() {
        return Err(BrokerConfigError::NoListener);
    }
    let secured = config.listeners.iter().find(|listener| listener.security_protocol != SecurityProtocol::Plaintext);
    if let Some(listener) = secured {
        // Served in plaintext it would show what its owner wants hidden.
        let protocol = listener.security_protocol.name();
        return Err(BrokerConfigError::Insecure { listener: listener.name.clone(), protocol });
    }
    for advertised in &config.advertised_listeners {
        let key = "advertised.listeners";
        if !config.listeners.iter().any(|listener| listener.name == advertised.name) {
            return Err(BrokerConfigError::NotListenedOn { listener: advertised.name.clone() });
        }
        if stands_for_all(&advertised.host) {
            return Err(BrokerConfigError::Unreachable {
                key,
                listener: advertised.name.clone(),
                host: advertised.host.clone(),
                port: advertised.port,
            });
        }
    }
    Ok(())
}

/// `0.0.0.0`, `::`, and what else reads as zero.
pub(super) fn stands_for_all(host: &str) -> bool {
    !host.is_empty() && host.chars().all(|one| matches!(one, '0' | '.' | ':'))
}

/// Kafka starts with a value that the topic does not take, and then never creates the topic.
fn internal_segments(config: &BrokerConfig, key: &'static str) -> Result<(), BrokerConfigError> {
    let value = config.value(key).unwrap_or_default();
    let checked = topic_definition("segment.bytes").map_or(Ok(()), |definition| definition.validate(value));
    checked.map_err(|InvalidConfig(why)| {
        InvalidConfig(why.replace("configuration segment.bytes", &format!("configuration {key}"))).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(pairs: &[(&str, &str)]) -> String {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        BrokerConfig::parse(pairs).expect_err("these settings are refused").to_string()
    }

    #[test]
    fn what_would_guard_the_broker_and_cannot_is_refused() {
        for key in GUARDS {
            assert_eq!(refusal(&[(key, "org.example.Guard")]), format!("{key}=org.example.Guard is not supported"));
            assert!(BrokerConfig::parse([(key.to_owned(), String::new())]).is_ok(), "{key} is empty");
        }
        let elsewhere = ("replica.selector.class", "org.example.Selector");
        for (key, value) in [("remote.log.storage.system.enable", "true"), ("process.roles", "broker"), elsewhere] {
            assert_eq!(refusal(&[(key, value)]), format!("{key}={value} is not supported"));
        }
        assert!(BrokerConfig::parse([("process.roles".to_owned(), "controller, broker".to_owned())]).is_ok());
        for (selector, rack_aware) in [(RACK_AWARE, true), (LEADER, false), ("", false)] {
            let config = BrokerConfig::parse([(SELECTOR.to_owned(), selector.to_owned())]).expect("known").0;
            assert_eq!(config.rack_aware_reads, rack_aware, "{selector}");
        }
    }

    #[test]
    fn a_listener_that_is_to_be_secured_is_refused() {
        for protocol in ["SSL", "SASL_PLAINTEXT", "SASL_SSL"] {
            let refusal = refusal(&[("listeners", &format!("{protocol}://127.0.0.1:9092"))]);
            assert!(refusal.contains(&format!("listener '{protocol}' is to be {protocol}")), "{refusal}");
        }
        let mapped = [("listeners", "OUT://h:1"), ("listener.security.protocol.map", "OUT:SASL_SSL")];
        assert!(refusal(&mapped).contains("listener 'OUT' is to be SASL_SSL"));
    }

    #[test]
    fn clients_are_told_of_addresses_that_they_can_reach() {
        for listeners in ["PLAINTEXT://0.0.0.0:9092", "PLAINTEXT://[::]:9092"] {
            assert!(refusal(&[("listeners", listeners)]).contains("advertised.listeners=PLAINTEXT://HOST:9092"));
        }
        let elsewhere = [("listeners", "PLAINTEXT://h:1"), ("advertised.listeners", "SSL://h:1")];
        assert!(refusal(&elsewhere).contains("'SSL' is not one of listeners"));
        let named = [("listeners", "PLAINTEXT://0.0.0.0:1"), ("advertised.listeners", "PLAINTEXT://broker.example:1")];
        let named = named.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(BrokerConfig::parse(named).unwrap().0.advertised_listeners[0].host, "broker.example");
    }

    /// One file of a Kafka node with both roles, as its own sample has it.
    #[test]
    fn a_controllers_listener_stays_closed() {
        let pairs = |more: &[(&str, &str)]| {
            let sample = [
                ("process.roles", "broker,controller"),
                ("controller.listener.names", "CONTROLLER"),
                ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ];
            let pairs = [&sample, more].concat();
            BrokerConfig::parse(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
        };
        let (config, said) = pairs(&[]).expect("served without it");
        let names = |listeners: &[super::super::ListenerConfig]| {
            listeners.iter().map(|listener| listener.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            (names(&config.listeners), names(&config.advertised_listeners)),
            (vec!["PLAINTEXT".into()], vec!["PLAINTEXT".into()])
        );
        assert_eq!(config.closed_listeners, ["CONTROLLER"]);
        assert!(said.len() == 1 && said[0].contains("'CONTROLLER' is not opened"), "{said:?}");
        let refused = |more: &[(&str, &str)]| pairs(more).expect_err("refused").to_string();
        let told = ("advertised.listeners", "PLAINTEXT://h:9092,CONTROLLER://h:9093");
        assert!(refused(&[told]).contains("'CONTROLLER' is in controller.listener.names"));
        assert!(refused(&[("listeners", "CONTROLLER://:9093")]).contains("every one is in controller.listener.names"));
    }

    #[test]
    fn internal_topics_have_segments_that_a_topic_may_have() {
        for key in INTERNAL_SEGMENTS {
            let refusal = refusal(&[(key, "1048575")]);
            assert_eq!(
                refusal,
                format!("Invalid value 1048575 for configuration {key}: Value must be at least 1048576")
            );
            assert!(BrokerConfig::parse([(key.to_owned(), "1048576".to_owned())]).is_ok());
        }
    }
}
