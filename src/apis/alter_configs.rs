//! AlterConfigs: replaces all that is set on a resource.

use std::time::Duration;

use madang_cluster::controller::{ApiResult, Outcome, Proposal, ResourceReplacement};
use madang_protocol::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
};

use crate::apis::proposals::{ask, wire};
use crate::env::Env;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: AlterConfigsRequest<'_>) -> AlterConfigsResponse<'static> {
    let proposal = Proposal::AlterConfigs {
        resources: request.resources.iter().map(replacement).collect(),
        validate_only: request.validate_only,
    };
    let take = |outcome| match outcome {
        Outcome::AlterConfigs(results) => Some(results),
        _ => None,
    };
    let results = ask(env, proposal, TIMEOUT, take).await;
    let responses = request.resources.iter().enumerate().map(|(place, resource)| {
        let result = match &results {
            Ok(results) => results.get(place).cloned().unwrap_or(Ok(())),
            Err(error) => Err(error.clone()),
        };
        answer(resource, result)
    });
    AlterConfigsResponse { responses: responses.collect(), ..AlterConfigsResponse::default() }
}

fn replacement(resource: &AlterConfigsResource<'_>) -> ResourceReplacement {
    let configs = resource.configs.iter();
    ResourceReplacement {
        resource_type: resource.resource_type,
        name: resource.resource_name.to_string(),
        configs: configs.map(|one| (one.name.to_string(), one.value.as_deref().map(str::to_owned))).collect(),
    }
}

fn answer(resource: &AlterConfigsResource<'_>, result: ApiResult<()>) -> AlterConfigsResourceResponse<'static> {
    let (error_code, error_message) = result.map_or_else(|error| wire(&error), |()| (0, None));
    AlterConfigsResourceResponse {
        error_code,
        error_message,
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.to_string().into(),
    }
}
