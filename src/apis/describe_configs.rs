//! DescribeConfigs: every key of a topic or broker, with its value, its source and every other place that sets it.

use std::collections::HashSet;

use madang_cluster::configs::{
    ConfigSource, DescribedConfig, describe_broker, describe_default_broker, describe_topic,
};
use madang_cluster::controller::check_topic_name;
use madang_cluster::metadata::ConfigResourceType;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};

use crate::env::Env;

type Refusal = (ErrorCode, String);

/// Answers one request.
pub fn handle<E: Env>(env: &E, request: DescribeConfigsRequest<'_>) -> DescribeConfigsResponse<'static> {
    let results = request.resources.iter().map(|resource| {
        let described = describe(env, resource);
        let (error_code, error_message, configs) = match described {
            Ok(configs) => (0, Some("".into()), configs),
            Err((error, message)) => (error.code(), Some(message.into()), Vec::new()),
        };
        let wanted: Option<HashSet<&str>> = resource
            .configuration_keys
            .as_ref()
            .filter(|keys| !keys.is_empty())
            .map(|keys| keys.iter().map(|key| &**key).collect());
        let configs = configs
            .into_iter()
            .filter(|config| wanted.as_ref().is_none_or(|wanted| wanted.contains(config.name.as_str())))
            .map(|config| entry(config, request.include_synonyms, request.include_documentation));
        DescribeConfigsResult {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.to_string().into(),
            configs: configs.collect(),
        }
    });
    DescribeConfigsResponse { results: results.collect(), ..DescribeConfigsResponse::default() }
}

fn describe<E: Env>(env: &E, resource: &DescribeConfigsResource<'_>) -> Result<Vec<DescribedConfig>, Refusal> {
    let (image, name) = (env.image(), &*resource.resource_name);
    match ConfigResourceType::from_code(resource.resource_type) {
        Some(ConfigResourceType::Topic) => {
            check_topic_name(name).map_err(|message| (ErrorCode::InvalidTopicException, message))?;
            if image.topic(name).is_none() {
                return Err((
                    ErrorCode::UnknownTopicOrPartition,
                    ErrorCode::UnknownTopicOrPartition.message().to_owned(),
                ));
            }
            Ok(describe_topic(&image, env.config(), env.node_id(), name))
        }
        Some(ConfigResourceType::Broker) if name.is_empty() => {
            Ok(describe_default_broker(&image, env.config(), env.node_id()))
        }
        Some(ConfigResourceType::Broker) => {
            let node = env.node_id();
            match name.parse::<i32>() {
                Ok(id) if id == node.0 => Ok(describe_broker(&image, env.config(), node)),
                Ok(_) => Err((
                    ErrorCode::InvalidRequest,
                    format!("Unexpected broker id, expected {node} or empty string, but received {name}"),
                )),
                Err(_) => Err((ErrorCode::InvalidRequest, format!("Broker id must be an integer, but it is: {name}"))),
            }
        }
        _ => Err((ErrorCode::InvalidRequest, format!("Unsupported resource type: {}", resource.resource_type))),
    }
}

fn entry(config: DescribedConfig, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult<'static> {
    let synonyms = if synonyms { config.synonyms } else { Vec::new() };
    let synonyms = synonyms.into_iter().map(|synonym| DescribeConfigsSynonym {
        name: synonym.name.into(),
        value: synonym.value.map(Into::into),
        source: source_code(synonym.source),
    });
    DescribeConfigsResourceResult {
        name: config.name.into(),
        value: config.value.map(Into::into),
        read_only: config.read_only,
        config_source: source_code(config.source),
        is_sensitive: config.sensitive,
        synonyms: synonyms.collect(),
        config_type: config.kind.map_or(0, |kind| kind.code()),
        documentation: config.documentation.filter(|_| documentation).map(Into::into),
    }
}

fn source_code(source: ConfigSource) -> i8 {
    source.code()
}
