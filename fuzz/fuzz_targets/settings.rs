//! Text that people and clients give: broker settings as lines of `key=value`, values of every topic key, topic names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madang_cluster::configs::{BrokerConfig, broker_definitions, topic_definitions};
use madang_cluster::controller::check_topic_name;
use madang_fuzz::guarded;

/// The tables of keys, built at the first use, and a warning for each line.
const TABLES: usize = 4 << 20;

fuzz_target!(|data: &[u8]| {
    let [choice, text @ ..] = data else { return };
    guarded(text, TABLES, |text| {
        let Ok(text) = std::str::from_utf8(text) else { return };
        if check_topic_name(text).is_ok() {
            assert!(!text.contains('/') && !text.is_empty() && text.len() < 250, "a name becomes a folder's");
        }
        let key = topic_definitions().nth(usize::from(*choice) % topic_definitions().count()).expect("a key");
        let _ = key.validate(text);
        let broker = broker_definitions().nth(usize::from(*choice) % broker_definitions().count()).expect("a key");
        let chosen = (broker.name.to_owned(), text.to_owned());
        let lines = text.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.into(), value.into()));
        for pairs in [vec![chosen], lines.collect()] {
            if let Ok((config, _)) = BrokerConfig::parse(pairs) {
                assert!(config.set_values().all(|(key, value)| config.set_value(key) == Some(value)));
            }
        }
    });
});
