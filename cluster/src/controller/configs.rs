//! Setting configuration keys of topics and brokers.
//! Invariant: what is set on a resource passes the checks of its keys as a whole, or nothing of the request is applied to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use madang_protocol::ErrorCode;
use madang_protocol::types::NodeId;

use super::api::{AlterOp, ApiError, ApiResult, ConfigAlteration, ResourceAlteration, ResourceReplacement};
use super::draft::{Draft, duplicate};
use super::records::MetadataRecord;
use super::replay::config_record;
use super::topics::check_name;
use crate::configs::{
    CLUSTER_KEYS, ConfigDefinition, ConfigKind, InvalidConfig, UpdateMode, broker_definition, resolve_topic_value,
    topic_definition,
};
use crate::metadata::{ConfigMap, ConfigResource, ConfigResourceType, MetadataImage};

/// Keys that Kafka lets change while it runs, and that hold here from the start to the end: a change would be left out in silence.
const NOT_LIVE: [&str; 3] = ["listener.security.protocol.map", "listeners", "max.connections.per.ip.overrides"];
/// Longest value in bytes.
const MAX_VALUE: usize = 32_767;

fn invalid(error: &InvalidConfig) -> ApiError {
    ApiError::new(ErrorCode::InvalidConfig, error.0.as_str())
}

/// The settings of a new topic, checked.
pub(super) fn checked_topic_config(configs: &[(String, Option<String>)]) -> ApiResult<ConfigMap> {
    let nulls: Vec<&str> = configs.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key.as_str()).collect();
    if !nulls.is_empty() {
        let message = format!("Null value not supported for topic configs: {}", nulls.join(","));
        return Err(ApiError::new(ErrorCode::InvalidConfig, message));
    }
    let pairs = configs.iter().filter_map(|(key, value)| Some((key.as_str().into(), value.as_deref()?.into())));
    let map: ConfigMap = pairs.collect();
    check_topic(&map)?;
    Ok(map)
}

fn check_topic(config: &ConfigMap) -> ApiResult<()> {
    for key in config.keys() {
        if topic_definition(key).is_none() {
            return Err(ApiError::new(ErrorCode::InvalidConfig, format!("Unknown topic config name: {key}")));
        }
    }
    for (key, value) in config {
        check_length(value)?;
        topic_definition(key)
            .map_or(Ok(()), |definition| definition.validate(value))
            .map_err(|error| invalid(&error))?;
    }
    let number = |key: &str| config.get(key).and_then(|value| value.trim().parse::<i64>().ok());
    let (least, most) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms").unwrap_or(i64::MAX));
    if let Some(least) = least.filter(|least| *least > most) {
        let message =
            format!("conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})");
        return Err(ApiError::new(ErrorCode::InvalidConfig, message));
    }
    if config.get("remote.storage.enable").is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
        let message = "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.";
        return Err(ApiError::new(ErrorCode::InvalidConfig, message));
    }
    Ok(())
}

fn check_length(value: &str) -> ApiResult<()> {
    if value.len() <= MAX_VALUE {
        return Ok(());
    }
    let message = format!(
        "The configuration value cannot be added because it exceeds the maximum value size of {MAX_VALUE} bytes."
    );
    Err(ApiError::new(ErrorCode::InvalidConfig, message))
}

/// Checks a broker's settings; `changed` are the keys that the request names.
fn check_broker(config: &ConfigMap, changed: &BTreeSet<String>, one_broker: bool) -> ApiResult<()> {
    let listed = |keep: &dyn Fn(&str, Option<&ConfigDefinition>) -> bool| {
        let names: Vec<&str> =
            changed.iter().map(String::as_str).filter(|name| keep(name, broker_definition(name))).collect();
        names.join(", ")
    };
    let fixed = listed(&|name, key| {
        let read_only = key.is_some_and(|key| key.update == UpdateMode::ReadOnly);
        read_only || name.starts_with("listener.name.") || NOT_LIVE.contains(&name)
    });
    if !fixed.is_empty() {
        let message = format!("Cannot update these configs dynamically: [{fixed}]");
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let security = listed(&|name, _| name.starts_with("ssl.") && broker_definition(name).is_some());
    if !security.is_empty() {
        let message = format!(
            "These security configs can be dynamically updated only per-listener using the listener prefix: [{security}]"
        );
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let cluster = listed(&|name, _| CLUSTER_KEYS.contains(&name) && config.contains_key(name));
    if one_broker && !cluster.is_empty() {
        let message = format!("Broker-level {cluster} cannot be altered while ELR is enabled.");
        return Err(ApiError::new(ErrorCode::InvalidConfig, message));
    }
    let single = listed(&|_, key| key.is_some_and(|key| key.update == UpdateMode::PerBroker));
    if !one_broker && !single.is_empty() {
        let message =
            format!("Cannot update these configs at default cluster level, broker id must be specified: [{single}]");
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    for (key, value) in config {
        check_length(value)?;
        broker_definition(key)
            .map_or(Ok(()), |definition| definition.validate(value))
            .map_err(|error| ApiError::new(ErrorCode::InvalidRequest, error.0.as_str()))?;
    }
    Ok(())
}

/// The resource that is meant, if it exists and can be configured.
fn resource(draft: &Draft<'_>, code: i8, name: &str) -> ApiResult<ConfigResource> {
    match ConfigResourceType::from_code(code) {
        Some(ConfigResourceType::Topic) if name.is_empty() => {
            Err(ApiError::new(ErrorCode::InvalidRequest, "Default topic resources are not allowed."))
        }
        Some(ConfigResourceType::Topic) if check_name(name).is_err() => {
            Err(ApiError::new(ErrorCode::InvalidTopicException, format!("The topic name '{name}' is invalid.")))
        }
        Some(ConfigResourceType::Topic) if draft.image.topic(name).is_none() => {
            Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, format!("The topic '{name}' does not exist.")))
        }
        Some(ConfigResourceType::Topic) => Ok(ConfigResource::topic(name)),
        Some(ConfigResourceType::Broker) if name.is_empty() => Ok(ConfigResource::default_broker()),
        Some(ConfigResourceType::Broker) => broker_resource(draft, name),
        _ => Err(ApiError::new(ErrorCode::InvalidRequest, format!("Unknown resource type {code}"))),
    }
}

fn broker_resource(draft: &Draft<'_>, name: &str) -> ApiResult<ConfigResource> {
    let Ok(node) = name.parse::<i32>() else {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "Unable to parse broker name as a base 10 number."));
    };
    if node < 0 {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "Invalid negative broker ID."));
    }
    if draft.image.broker(NodeId(node)).is_none() {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!("Unexpected broker id: no broker {node} is registered."),
        ));
    }
    Ok(ConfigResource::broker(NodeId(node)))
}

fn resources_twice<'a>(resources: impl Iterator<Item = (i8, &'a str)>) -> BTreeSet<(i8, String)> {
    let mut seen = BTreeSet::new();
    resources.filter(|one| !seen.insert(*one)).map(|(code, name)| (code, name.to_owned())).collect()
}

pub(super) fn alter(draft: &mut Draft<'_>, resources: Vec<ResourceAlteration>) -> Vec<ApiResult<()>> {
    let twice = resources_twice(resources.iter().map(|one| (one.resource_type, one.name.as_str())));
    let one = |asked: ResourceAlteration| {
        if twice.contains(&(asked.resource_type, asked.name.clone())) {
            return Err(duplicate("Each resource must appear at most once."));
        }
        alter_one(draft, asked)
    };
    resources.into_iter().map(one).collect()
}

fn alter_one(draft: &mut Draft<'_>, asked: ResourceAlteration) -> ApiResult<()> {
    let resource = resource(draft, asked.resource_type, &asked.name)?;
    let changed: BTreeSet<String> = asked.alterations.iter().map(|change| change.key.clone()).collect();
    if changed.len() < asked.alterations.len() {
        return Err(duplicate("Error due to duplicate config keys"));
    }
    let null = |change: &&ConfigAlteration| change.op != AlterOp::Delete && change.value.is_none();
    let nulls: Vec<&str> = asked.alterations.iter().filter(null).map(|change| change.key.as_str()).collect();
    if !nulls.is_empty() {
        let message = format!("Null value not supported for : {}", nulls.join(","));
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let old = draft.image.config(&resource).map(|config| (**config).clone()).unwrap_or_default();
    let mut new = old.clone();
    for change in &asked.alterations {
        apply(draft, &resource, &mut new, change)?;
    }
    commit(draft, &resource, &old, &new, &changed)
}

fn apply(
    draft: &Draft<'_>,
    resource: &ConfigResource,
    config: &mut ConfigMap,
    change: &ConfigAlteration,
) -> ApiResult<()> {
    let value = change.value.as_deref().unwrap_or_default();
    match change.op {
        AlterOp::Set => {
            config.insert(change.key.as_str().into(), value.into());
        }
        AlterOp::Delete => {
            config.remove(change.key.as_str());
        }
        AlterOp::Append | AlterOp::Subtract => {
            let items = altered_list(draft, resource, config, change, value)?;
            config.insert(change.key.as_str().into(), items.join(",").into());
        }
    }
    Ok(())
}

fn altered_list(
    draft: &Draft<'_>,
    resource: &ConfigResource,
    config: &ConfigMap,
    change: &ConfigAlteration,
    value: &str,
) -> ApiResult<Vec<String>> {
    let topic = resource.resource_type == ConfigResourceType::Topic;
    let key = if topic { topic_definition(&change.key) } else { broker_definition(&change.key) };
    if key.is_none_or(|key| key.kind != ConfigKind::List) {
        let message = format!("Can't {} to key {} because its type is not LIST.", change.op.name(), change.key);
        return Err(ApiError::new(ErrorCode::InvalidConfig, message));
    }
    let current = match config.get(change.key.as_str()) {
        Some(current) => current.to_string(),
        // As Kafka's controller: what a broker's file says or the default, not what is set on all brokers while they run.
        None if topic => {
            resolve_topic_value(&MetadataImage::default(), draft.defaults, draft.defaults.node_id, None, &change.key)
        }
        None => draft.defaults.value(&change.key).unwrap_or_default().to_owned(),
    };
    let mut items: Vec<String> =
        if current.is_empty() { Vec::new() } else { split(&current).map(str::to_owned).collect() };
    for item in split(value) {
        let present = items.iter().position(|present| present == item);
        match (change.op, present) {
            (AlterOp::Subtract, Some(at)) => drop(items.remove(at)),
            (AlterOp::Append, None) => items.push(item.to_owned()),
            _ => {}
        }
    }
    Ok(items)
}

/// What lies between a list's commas as Java splits it: nothing after the last that is not empty, and of an empty text the text itself.
fn split(value: &str) -> impl Iterator<Item = &str> {
    let end = if value.is_empty() { value } else { value.trim_end_matches(',') };
    let none = end.is_empty() && !value.is_empty();
    (!none).then(|| end.split(',')).into_iter().flatten()
}

pub(super) fn replace(draft: &mut Draft<'_>, resources: Vec<ResourceReplacement>) -> Vec<ApiResult<()>> {
    let twice = resources_twice(resources.iter().map(|one| (one.resource_type, one.name.as_str())));
    let one = |asked: ResourceReplacement| {
        if twice.contains(&(asked.resource_type, asked.name.clone())) {
            return Err(duplicate("Each resource must appear at most once."));
        }
        replace_one(draft, &asked)
    };
    resources.into_iter().map(one).collect()
}

fn replace_one(draft: &mut Draft<'_>, asked: &ResourceReplacement) -> ApiResult<()> {
    let resource = resource(draft, asked.resource_type, &asked.name)?;
    let nulls: Vec<&str> =
        asked.configs.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key.as_str()).collect();
    if !nulls.is_empty() {
        let message = format!("Null value not supported for : {}", nulls.join(","));
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let pairs =
        asked.configs.iter().filter_map(|(key, value)| Some((Arc::from(key.as_str()), value.as_deref()?.into())));
    let new: ConfigMap = pairs.collect();
    if new.len() < asked.configs.len() {
        return Err(duplicate("Error due to duplicate config keys"));
    }
    let old = draft.image.config(&resource).map(|config| (**config).clone()).unwrap_or_default();
    let named = asked.configs.iter().map(|(key, _)| key.clone()).collect();
    commit(draft, &resource, &old, &new, &named)
}

/// Checks the new settings and records what differs from the old ones.
fn commit(
    draft: &mut Draft<'_>,
    resource: &ConfigResource,
    old: &ConfigMap,
    new: &ConfigMap,
    named: &BTreeSet<String>,
) -> ApiResult<()> {
    match resource.resource_type {
        ConfigResourceType::Topic => check_topic(new)?,
        _ => check_broker(new, named, !resource.name.is_empty())?,
    }
    let mut changes: BTreeMap<&str, Option<String>> = BTreeMap::new();
    changes.extend(old.keys().filter(|key| !new.contains_key(*key)).map(|key| (&**key, None)));
    let set = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    changes.extend(set.map(|(key, value)| (&**key, Some(value.to_string()))));
    for (key, value) in changes {
        draft.push(MetadataRecord::Config(config_record(resource, key, value)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use madang_actors::prng::Prng;

    use super::*;
    use crate::configs::BrokerConfig;

    /// What a list holds after one change, of brokers with `cleanup.policy` set to `dynamic` while they run and `file` before.
    fn changed(file: Option<&str>, dynamic: &str, op: AlterOp, value: &str) -> String {
        let pairs = file.map(|policy| ("log.cleanup.policy".to_owned(), policy.to_owned()));
        let defaults = BrokerConfig::parse(pairs).expect("valid").0;
        let mut image = MetadataImage::default();
        let set = ConfigMap::from([("log.cleanup.policy".into(), dynamic.into())]);
        image.configs.insert(ConfigResource::default_broker(), Arc::new(set));
        let mut rng = Prng::new(1);
        let draft = Draft::new(&image, &defaults, &mut rng);
        let change = ConfigAlteration { key: "cleanup.policy".to_owned(), op, value: Some(value.to_owned()) };
        let resource = ConfigResource::topic("t");
        altered_list(&draft, &resource, &ConfigMap::default(), &change, value).expect("a list").join("|")
    }

    /// Each answer is what Kafka 4.3.1 comes to.
    #[test]
    fn a_list_is_changed_from_the_brokers_file_or_the_default_on() {
        assert_eq!(changed(None, "compact", AlterOp::Append, "compact"), "delete|compact");
        assert_eq!(changed(None, "compact", AlterOp::Append, "delete"), "delete");
        assert_eq!(changed(Some("compact"), "delete", AlterOp::Append, "delete"), "compact|delete");
        assert_eq!(changed(Some("compact"), "delete", AlterOp::Subtract, "compact"), "");
    }

    #[test]
    fn what_is_between_two_commas_is_an_item_and_what_follows_the_last_is_none() {
        for (op, value, items) in [
            (AlterOp::Append, "", "delete|"),
            (AlterOp::Append, ",", "delete"),
            (AlterOp::Append, "compact,", "delete|compact"),
            (AlterOp::Append, "compact,,delete", "delete|compact|"),
            (AlterOp::Append, "compact,compact", "delete|compact"),
            (AlterOp::Subtract, "", "delete"),
            (AlterOp::Subtract, "compact,,delete", ""),
            (AlterOp::Subtract, " delete ", "delete"),
        ] {
            assert_eq!(changed(None, "delete", op, value), items, "{op:?} {value:?}");
        }
    }

    #[test]
    fn a_policy_that_lists_nothing_between_commas_is_refused() {
        let check = |value: &str| check_topic(&ConfigMap::from([("cleanup.policy".into(), value.into())]));
        assert_eq!(check("").and_then(|()| check("compact, delete")), Ok(()));
        let refused = check("delete,").expect_err("an empty item");
        assert_eq!(refused.message.as_deref(), Some("Configuration 'cleanup.policy' values must not be empty."));
    }
}
