//! The addresses at which nodes reach each other, and the quorum among them.

use madang_protocol::types::NodeId;

use super::broker::{BrokerConfig, BrokerConfigError};
use super::definition::list_items;

/// Where other nodes reach this one.
pub(super) const LISTENER: &str = "madang.node.listener";
/// Where other nodes are told to reach it, if that is elsewhere.
pub(super) const ADVERTISED: &str = "madang.node.advertised.listener";
/// Who votes.
pub(super) const VOTERS: &str = "controller.quorum.voters";

/// The host and port of the address that a key has.
///
/// # Errors
/// It has no host, or no port.
pub(super) fn listener(key: &'static str, text: Option<&str>) -> Result<Option<(String, u16)>, BrokerConfigError> {
    let Some(text) = text else { return Ok(None) };
    let read = text.rsplit_once(':').and_then(|(host, port)| Some((unbracketed(host), port.parse().ok()?)));
    let unreadable = || BrokerConfigError::Address { key, address: text.to_owned() };
    let (host, port) = read.filter(|(host, _)| !host.is_empty()).ok_or_else(unreadable)?;
    Ok(Some((host.to_owned(), port)))
}

/// Each voter's number and address.
///
/// # Errors
/// One that has no number or no port, or is named twice.
pub fn voters(text: Option<&str>) -> Result<Vec<(NodeId, String)>, BrokerConfigError> {
    let mut voters: Vec<(NodeId, String)> = Vec::new();
    for item in list_items(text.unwrap_or_default()) {
        let unreadable = || BrokerConfigError::Address { key: VOTERS, address: item.to_owned() };
        let (node, address) = item.split_once('@').ok_or_else(unreadable)?;
        let node = NodeId(node.parse().ok().filter(|node| *node >= 0).ok_or_else(unreadable)?);
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !has_port || voters.iter().any(|(other, _)| *other == node) {
            return Err(unreadable());
        }
        voters.push((node, address.to_owned()));
    }
    Ok(voters)
}

/// A node among others has to reach them. If it is one of the voters that it names, those are the first voters of a new cluster; if not, it joins
/// theirs. One voter, as in the file of a single Kafka node, is the node itself.
///
/// # Errors
/// What is missing.
pub(super) fn check(config: &BrokerConfig) -> Result<(), BrokerConfigError> {
    let (voters, connected) = (&config.quorum_voters, config.node_listener.is_some());
    if config.node_advertised_listener.is_some() && !connected {
        return Err(BrokerConfigError::Quorum(
            "set madang.node.listener too, as madang.node.advertised.listener is set",
        ));
    }
    let own = voters.iter().any(|(node, _)| *node == config.node_id);
    let missing = match (voters.len(), connected) {
        (0 | 1, false) => return Ok(()),
        (0, true) => "name the voters, as madang.node.listener is set",
        (_, false) => "set madang.node.listener and madang.node.certificates too",
        _ if config.node_certificates.is_none() => "set madang.node.certificates too",
        (1 | 3 | 5, _) => return Ok(()),
        _ if !own => return Ok(()),
        _ => "there may be 1, 3 or 5 of them",
    };
    Err(BrokerConfigError::Quorum(missing))
}

pub(super) fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<BrokerConfig, String> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        BrokerConfig::parse(pairs).map(|(config, _)| config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_node_among_others_says_where_it_and_the_voters_are() {
        let three = "1@a:19092,2@b:19092,3@c:19092";
        let node = ("madang.node.listener", "[::1]:19091");
        let folder = ("madang.node.certificates", "certificates");
        let config = parse(&[(VOTERS, three), node, folder]).unwrap();
        assert_eq!(config.node_listener, Some(("::1".into(), 19091)));
        assert_eq!(config.quorum_voters[2], (NodeId(3), "c:19092".into()));
        for missing in [&[(VOTERS, three)][..], &[(VOTERS, three), node], &[node, folder]] {
            assert!(parse(missing).unwrap_err().starts_with("controller.quorum.voters: "), "{missing:?}");
        }
        let refused = |voters| parse(&[(VOTERS, voters), node, folder]).unwrap_err();
        for others in ["2@b:1", "2@b:1,3@c:1"] {
            assert!(parse(&[(VOTERS, others), node, folder]).is_ok(), "a node that is not among them joins them");
        }
        assert!(refused("1@a:1,2@b:1").contains("1, 3 or 5"));
        for unreadable in ["1@a", "a:1", "x@a:1", "-1@a:1", "1@a:1,1@b:1,3@c:1", "1@a:70000"] {
            assert!(refused(unreadable).contains("cannot read"), "{unreadable}");
        }
        for unreadable in [":1", "host", "host:x"] {
            for key in [LISTENER, ADVERTISED] {
                assert!(parse(&[(key, unreadable)]).unwrap_err().contains("cannot read"), "{key}={unreadable}");
            }
        }
    }

    #[test]
    fn a_node_may_be_reached_elsewhere_than_where_it_listens() {
        let quorum = [(VOTERS, "1@a:19092"), (LISTENER, "0.0.0.0:19091"), ("madang.node.certificates", "folder")];
        assert_eq!(parse(&quorum).unwrap().node_advertised_listener, None);
        let config = parse(&[quorum.as_slice(), &[(ADVERTISED, "a:29091")]].concat()).unwrap();
        assert_eq!(config.node_advertised_listener, Some(("a".into(), 29091)));
        assert!(parse(&[(ADVERTISED, "a:29091")]).unwrap_err().contains("madang.node.listener too"));
    }

    #[test]
    fn the_only_voter_of_a_kafka_nodes_file_is_the_node_itself() {
        assert!(parse(&[(VOTERS, "1@localhost:9093")]).is_ok());
    }
}
