//! What the handlers of the group APIs share: the way to the shard and back.

use std::sync::Arc;
use std::time::Duration;

use madang_cluster::coordinator::{Request, Response};
use madang_protocol::error_code::ErrorCode;

use crate::env::Env;

/// How long a shard may take to answer what it does not park by design: as in Kafka that of a commit holds for all that a shard stores.
pub fn timeout<E: Env>(env: &E) -> Duration {
    env.config().offsets_commit_timeout
}

/// Asks the shard of `group`; `take` picks the answer's kind. A shard that answers another kind is a bug of ours and reads as
/// an unknown server error.
pub async fn ask<E: Env, T>(
    env: &E,
    group: &str,
    request: Request,
    timeout: Duration,
    take: impl FnOnce(Response) -> Option<T>,
) -> Result<T, ErrorCode> {
    let response = env.group(group, request, env.now() + timeout).await?;
    take(response).ok_or(ErrorCode::UnknownServerError)
}

/// An owned copy of an optional text.
pub fn shared(text: Option<&str>) -> Option<Arc<str>> {
    text.map(Arc::from)
}
