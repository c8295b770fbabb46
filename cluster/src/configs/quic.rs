//! Where clients are served over QUIC, and what certificate they are shown.

use super::broker::{BrokerConfigError, ListenerConfig};
use super::{nodes, startup};
use crate::metadata::SecurityProtocol;

/// The name under which the listener is registered beside those of `listeners`.
pub const QUIC_LISTENER: &str = "QUIC";
pub(super) const LISTENER: &str = "madang.quic.listener";
pub(super) const ADVERTISED: &str = "madang.quic.advertised.listener";
pub(super) const CERTIFICATE: &str = "madang.quic.certificate";
pub(super) const KEY: &str = "madang.quic.key";

/// A listener for clients over QUIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicConfig {
    /// Where it listens: a UDP port.
    pub listener: ListenerConfig,
    /// Where clients are told to connect.
    pub advertised: ListenerConfig,
    /// Files of the certificate and of its key; none to find or make one.
    pub certificate: Option<(String, String)>,
}

/// Reads the four keys; none if nothing is to listen.
pub(super) fn parse<'a>(set: impl Fn(&str) -> Option<&'a str>) -> Result<Option<QuicConfig>, BrokerConfigError> {
    let (advertised, certificate, key) = (set(ADVERTISED), set(CERTIFICATE), set(KEY));
    let Some(text) = set(LISTENER) else {
        let alone = [advertised, certificate, key].into_iter().any(|value| value.is_some());
        return if alone { refused("set it too, as another madang.quic key is set") } else { Ok(None) };
    };
    let listener = address(LISTENER, text)?;
    let advertised = advertised.map_or_else(|| Ok(listener.clone()), |text| address(ADVERTISED, text))?;
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate.to_owned(), key.to_owned())),
        (None, None) => None,
        _ => return refused("set madang.quic.certificate and madang.quic.key both, or neither"),
    };
    Ok(Some(QuicConfig { listener, advertised, certificate }))
}

fn address(key: &'static str, text: &str) -> Result<ListenerConfig, BrokerConfigError> {
    let read = text.rsplit_once(':').and_then(|(host, port)| Some((nodes::unbracketed(host), port.parse().ok()?)));
    let (host, port) = read.ok_or_else(|| BrokerConfigError::Address { key, address: text.to_owned() })?;
    let (name, host) = (QUIC_LISTENER.to_owned(), host.to_owned());
    Ok(ListenerConfig { name, host, port, security_protocol: SecurityProtocol::Ssl })
}

fn refused<T>(why: &'static str) -> Result<T, BrokerConfigError> {
    Err(BrokerConfigError::Quic(why.to_owned()))
}

/// Checks it beside the other listeners.
pub(super) fn check(quic: Option<&QuicConfig>, others: &[ListenerConfig]) -> Result<(), BrokerConfigError> {
    let Some(quic) = quic else { return Ok(()) };
    if others.iter().any(|other| other.name == QUIC_LISTENER) {
        return refused("a listener of listeners has its name, QUIC");
    }
    let host = &quic.advertised.host;
    if startup::stands_for_all(host) {
        let why =
            format!("clients cannot connect to {host}: set {ADVERTISED}=HOST:PORT, with a host that they can reach");
        return Err(BrokerConfigError::Quic(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::BrokerConfig;
    use super::*;

    fn parsed(pairs: &[(&str, &str)]) -> Result<Option<QuicConfig>, String> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        BrokerConfig::parse(pairs).map(|(config, _)| config.quic).map_err(|error| error.to_string())
    }

    #[test]
    fn a_listener_has_a_port_and_perhaps_a_host_and_files() {
        assert_eq!(parsed(&[]), Ok(None));
        let config = parsed(&[(LISTENER, ":9094")]).unwrap().unwrap();
        assert_eq!((config.listener.host.as_str(), config.listener.port), ("", 9094));
        assert_eq!((config.advertised, config.certificate), (config.listener, None));
        let all = [(LISTENER, "[::]:9094"), (ADVERTISED, "a.example:19094"), (CERTIFICATE, "c"), (KEY, "k")];
        let config = parsed(&all).unwrap().unwrap();
        assert_eq!((config.listener.host.as_str(), config.advertised.host.as_str()), ("::", "a.example"));
        assert_eq!(config.certificate, Some(("c".to_owned(), "k".to_owned())));
        assert_eq!(config.advertised.security_protocol, SecurityProtocol::Ssl);
    }

    #[test]
    fn what_could_not_serve_is_refused() {
        for (pairs, why) in [
            (&[(LISTENER, "9094")][..], "write HOST:PORT"),
            (&[(LISTENER, "0.0.0.0:9094")], "clients cannot connect to 0.0.0.0"),
            (&[(ADVERTISED, "a:1")], "set it too"),
            (&[(LISTENER, "a:1"), (KEY, "k")], "both, or neither"),
            (
                &[(LISTENER, "a:1"), ("listeners", "QUIC://:1"), ("listener.security.protocol.map", "QUIC:PLAINTEXT")],
                "has its name",
            ),
        ] {
            let refusal = parsed(pairs).unwrap_err();
            assert!(refusal.contains(why), "{pairs:?}: {refusal}");
        }
    }
}
