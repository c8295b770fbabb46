//! Events as lines of JSON; docs/history.md describes them.
//! Invariant: `parse` of what `write` makes is the same event.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Event, Found, Key, Kind, Op, Polled, Sent};

/// A line; what `value` is depends on `f`.
#[derive(Deserialize)]
struct Line<'a> {
    index: u64,
    t_mono_ns: u64,
    process: u32,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    f: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    err: Option<String>,
    acks: Option<i8>,
    #[serde(default)]
    idempotent: bool,
    #[serde(default)]
    log_start: BTreeMap<Key, i64>,
    #[serde(default)]
    high_watermark: BTreeMap<Key, i64>,
    #[serde(default)]
    rebalance_log: Vec<Key>,
    #[serde(default)]
    ends: BTreeSet<Key>,
    #[serde(default)]
    last_read: bool,
    group: Option<String>,
    generation: Option<i64>,
    #[serde(default)]
    compacted: Vec<Key>,
}

/// `["poll", {key: records}]`
type PollOp<'a> = (Cow<'a, str>, BTreeMap<Key, Vec<PolledValue>>);

/// `value`, or `[offset, value]`.
struct SendValue(Option<i64>, u64);

impl<'de> Deserialize<'de> for SendValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = SendValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, or [offset, value]")
            }
            fn visit_u64<E>(self, value: u64) -> Result<SendValue, E> {
                Ok(SendValue(None, value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<SendValue, A::Error> {
                let missing = || A::Error::custom("[offset, value] has two parts");
                let offset = parts.next_element()?.ok_or_else(missing)?;
                let value = parts.next_element()?.ok_or_else(missing)?;
                Ok(SendValue(Some(offset), value))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A number, or a text that says what is there instead.
struct FoundValue(Found);

impl<'de> Deserialize<'de> for FoundValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = FoundValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, or a text that says why there is none")
            }
            fn visit_u64<E>(self, value: u64) -> Result<FoundValue, E> {
                Ok(FoundValue(Found::Value(value)))
            }
            fn visit_str<E>(self, why: &str) -> Result<FoundValue, E> {
                Ok(FoundValue(Found::Damaged(why.to_owned())))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads a line.
///
/// # Errors
/// What is wrong with it.
pub fn parse(line: &str) -> Result<Event, String> {
    let line: Line<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let kind = match &*line.kind {
        "invoke" => Kind::Invoke,
        "ok" => Kind::Ok,
        "fail" => Kind::Fail,
        "info" => Kind::Info,
        other => return Err(format!("type {other:?}: invoke, ok, fail or info")),
    };
    let (index, at_ns, process) = (line.index, line.t_mono_ns, line.process);
    let error = line.err.clone();
    Ok(Event { index, at_ns, process, kind, op: op(line)?, error })
}

fn op(line: Line<'_>) -> Result<Op, String> {
    let group = line.group.ok_or("no group");
    let generation = line.generation;
    let (raw, f) = (line.value.map_or("null", RawValue::get), line.f);
    Ok(match &*f {
        "send" => {
            let sends: Vec<(Cow<'_, str>, Key, SendValue)> = value(raw)?;
            let sends = sends.into_iter().map(|(_, key, SendValue(offset, value))| Sent { key, value, offset });
            let acks = line.acks.ok_or("a send without acks")?;
            Op::Send { sends: sends.collect(), acks, idempotent: line.idempotent }
        }
        "poll" => {
            let mut records: BTreeMap<Key, Vec<Polled>> = BTreeMap::new();
            let polls: Option<Vec<PollOp<'_>>> = value(raw)?;
            for (key, of_key) in polls.into_iter().flatten().flat_map(|(_, keys)| keys) {
                records.entry(key).or_default().extend(of_key.into_iter().map(|PolledValue(polled)| polled));
            }
            Op::Poll {
                records,
                log_start: line.log_start,
                high_watermark: line.high_watermark,
                rebalanced: line.rebalance_log,
                ends: line.ends,
            }
        }
        "assign" => Op::Assign { from: value(raw)?, last_read: line.last_read },
        "subscribe" => Op::Subscribe { group: group? },
        "rebalance" => {
            let Changes { assigned, revoked, lost } = value(raw)?;
            Op::Rebalance { group: group?, generation, assigned, revoked, lost }
        }
        "commit" => Op::Commit { group: group?, generation, offsets: value(raw)? },
        "fetch_offset" => Op::FetchOffset { group: group?, offsets: value::<Option<_>>(raw)?.unwrap_or_default() },
        "list_offsets" => Op::ListOffsets { ends: value::<Option<_>>(raw)?.unwrap_or_default() },
        "crash" => Op::Crash,
        "admin" => Op::Admin { what: value(raw)?, compacted: line.compacted },
        other => return Err(format!("f {other:?} is not known")),
    })
}

fn value<'a, T: Deserialize<'a>>(raw: &'a str) -> Result<T, String> {
    serde_json::from_str(raw).map_err(|error| format!("value: {error}"))
}

/// `[offset, value, …]`; what comes after the two is for people.
struct PolledValue(Polled);

impl<'de> Deserialize<'de> for PolledValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = PolledValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[offset, value, leader_epoch, timestamp]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<PolledValue, A::Error> {
                let missing = || A::Error::custom("a record has an offset and a value");
                let offset = parts.next_element()?.ok_or_else(missing)?;
                let FoundValue(found) = parts.next_element()?.ok_or_else(missing)?;
                while parts.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(PolledValue(Polled { offset, found }))
            }
        }
        deserializer.deserialize_seq(Parts)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Changes {
    assigned: Vec<Key>,
    revoked: Vec<Key>,
    lost: Vec<Key>,
}

/// The event as a line, without its end. `more` holds what a recorder knows beside it: `run`, `client_id`, `node`.
#[must_use]
pub fn write(event: &Event, more: &Map<String, Value>) -> String {
    let mut line = more.clone();
    let kind = match event.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    };
    line.insert("index".into(), event.index.into());
    line.insert("t_mono_ns".into(), event.at_ns.into());
    line.insert("process".into(), event.process.into());
    line.insert("type".into(), kind.into());
    if let Some(error) = &event.error {
        line.insert("err".into(), error.as_str().into());
    }
    let (f, value) = what(&event.op, &mut line);
    line.insert("f".into(), f.into());
    line.insert("value".into(), value);
    Value::Object(line).to_string()
}

fn what(op: &Op, line: &mut Map<String, Value>) -> (&'static str, Value) {
    let mut also = |name: &str, value: Value| {
        let empty = value.is_null()
            || value.as_object().is_some_and(Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty);
        if !empty {
            line.insert(name.to_owned(), value);
        }
    };
    match op {
        Op::Send { sends, acks, idempotent } => {
            also("acks", json!(acks));
            also("idempotent", json!(idempotent));
            let sends = sends.iter().map(|sent| match sent.offset {
                Some(offset) => json!(["send", sent.key, [offset, sent.value]]),
                None => json!(["send", sent.key, sent.value]),
            });
            ("send", sends.collect())
        }
        Op::Poll { records, log_start, high_watermark, rebalanced, ends } => {
            also("log_start", json!(log_start));
            also("high_watermark", json!(high_watermark));
            also("rebalance_log", json!(rebalanced));
            also("ends", json!(ends));
            let of_key = |polled: &Vec<Polled>| polled.iter().map(polled_value).collect::<Value>();
            let keys: Map<String, Value> = records.iter().map(|(key, all)| (key.clone(), of_key(all))).collect();
            ("poll", json!([["poll", keys]]))
        }
        Op::Assign { from, last_read } => {
            also("last_read", json!(last_read));
            ("assign", json!(from))
        }
        Op::Subscribe { group } => {
            also("group", json!(group));
            ("subscribe", Value::Null)
        }
        Op::Rebalance { group, generation, assigned, revoked, lost } => {
            also("group", json!(group));
            also("generation", json!(generation));
            ("rebalance", json!({ "assigned": assigned, "revoked": revoked, "lost": lost }))
        }
        Op::Commit { group, generation, offsets } => {
            also("group", json!(group));
            also("generation", json!(generation));
            ("commit", json!(offsets))
        }
        Op::FetchOffset { group, offsets } => {
            also("group", json!(group));
            ("fetch_offset", json!(offsets))
        }
        Op::ListOffsets { ends } => ("list_offsets", json!(ends)),
        Op::Crash => ("crash", Value::Null),
        Op::Admin { what, compacted } => {
            also("compacted", json!(compacted));
            ("admin", json!(what))
        }
    }
}

fn polled_value(polled: &Polled) -> Value {
    match &polled.found {
        Found::Value(value) => json!([polled.offset, value]),
        Found::Damaged(why) => json!([polled.offset, why]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_event_is_refused() {
        for line in [
            "",
            "{}",
            r#"{"index":0,"t_mono_ns":0,"process":1,"type":"maybe","f":"crash"}"#,
            r#"{"index":0,"t_mono_ns":0,"process":1,"type":"ok","f":"dance"}"#,
            r#"{"index":0,"t_mono_ns":0,"process":1,"type":"ok","f":"send","acks":-1,"value":[["send","a/0",[1]]]}"#,
            r#"{"index":0,"t_mono_ns":0,"process":1,"type":"ok","f":"send","value":[]}"#,
            r#"{"index":0,"t_mono_ns":0,"process":1,"type":"ok","f":"commit","value":{}}"#,
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_recorder_may_say_more_than_is_judged() {
        let line = r#"{"run":"r","client_id":"c","node":null,"index":3,"t_mono_ns":9,"process":1,"type":"ok","f":"poll",
            "value":[["poll",{"a/0":[[5,7,2,1700000000000],[6,"checksum"]]}]],"conn":4}"#;
        let event = parse(line).unwrap();
        let Op::Poll { records, .. } = &event.op else { panic!("{event:?}") };
        assert_eq!(records["a/0"][0], Polled { offset: 5, found: Found::Value(7) });
        assert_eq!(records["a/0"][1].found, Found::Damaged("checksum".to_owned()));
        assert_eq!(parse(&write(&event, &Map::new())), Ok(event));
    }
}
