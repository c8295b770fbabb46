//! What the handlers that change metadata share: the way to the controller, and how its refusals read.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use madang_cluster::controller::{ApiError, Outcome, Proposal};
use madang_protocol::error_code::ErrorCode;

use crate::env::Env;

/// A request waits no longer than this, whatever it asks for.
const LONGEST: Duration = Duration::from_secs(600);

/// The wait that a request asks for.
pub fn timeout(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)).min(LONGEST)
}

/// Asks the controller; `take` picks the outcome's kind. An outcome of another kind is a bug of ours.
pub async fn ask<E: Env, T>(
    env: &E,
    proposal: Proposal,
    timeout: Duration,
    take: impl FnOnce(Outcome) -> Option<T>,
) -> Result<T, ApiError> {
    let outcome = env.propose(proposal, env.now() + timeout).await?;
    take(outcome).ok_or_else(|| ErrorCode::UnknownServerError.into())
}

/// The wire's number and text of a refusal.
pub fn wire(error: &ApiError) -> (i16, Option<Cow<'static, str>>) {
    let text = error.message.as_deref().map_or_else(|| error.error.message().to_owned(), str::to_owned);
    (error.error.code(), Some(text.into()))
}

/// The first answer for each `key`: what a request names twice is refused once.
pub fn first_of_each<T, K: Ord>(answers: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = BTreeSet::new();
    answers.into_iter().filter(|answer| seen.insert(key(answer))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_twice_is_answered_once() {
        assert_eq!(first_of_each(vec![(1, 'a'), (2, 'b'), (1, 'c')], |one| one.0), [(1, 'a'), (2, 'b')]);
    }
}
