//! IncrementalAlterConfigs: sets, deletes, appends to and subtracts from single keys (KIP-339).

use std::time::Duration;

use madang_cluster::controller::{
    AlterOp, ApiError, ApiResult, ConfigAlteration, Outcome, Proposal, ResourceAlteration,
};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};

use crate::apis::proposals::{ask, wire};
use crate::env::Env;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Answers one request.
pub async fn handle<E: Env>(
    env: &E,
    request: IncrementalAlterConfigsRequest<'_>,
) -> IncrementalAlterConfigsResponse<'static> {
    let parsed: Vec<Result<ResourceAlteration, ApiError>> = request.resources.iter().map(alteration).collect();
    let proposal = Proposal::IncrementalAlterConfigs {
        resources: parsed.iter().filter_map(|one| one.clone().ok()).collect(),
        validate_only: request.validate_only,
    };
    let take = |outcome| match outcome {
        Outcome::AlterConfigs(results) => Some(results),
        _ => None,
    };
    let results = ask(env, proposal, TIMEOUT, take).await;
    let mut asked = 0;
    let responses = request.resources.iter().zip(parsed).map(|(resource, parsed)| {
        let result = parsed.and_then(|_| {
            asked += 1;
            match &results {
                Ok(results) => results.get(asked - 1).cloned().unwrap_or(Ok(())),
                Err(error) => Err(error.clone()),
            }
        });
        answer(resource, result)
    });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..IncrementalAlterConfigsResponse::default() }
}

fn alteration(resource: &AlterConfigsResource<'_>) -> Result<ResourceAlteration, ApiError> {
    let mut alterations = Vec::with_capacity(resource.configs.len());
    for config in &resource.configs {
        let unknown =
            || ApiError::new(ErrorCode::InvalidRequest, format!("Unknown operation type {}", config.config_operation));
        alterations.push(ConfigAlteration {
            key: config.name.to_string(),
            op: AlterOp::from_code(config.config_operation).ok_or_else(unknown)?,
            value: config.value.as_deref().map(str::to_owned),
        });
    }
    Ok(ResourceAlteration {
        resource_type: resource.resource_type,
        name: resource.resource_name.to_string(),
        alterations,
    })
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
