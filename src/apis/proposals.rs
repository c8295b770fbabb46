//! What the handlers that change metadata share: the way to the controller, and how its refusals read.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use madang_cluster::controller::{ApiError, Outcome, Proposal};
use madang_protocol::error_code::ErrorCode;

use crate::env::Env;

/// A request waits no longer than this, whatever it asks for.
const LONGEST: Duration = Duration::from_secs(600);

/// However little patience a request has, this much time is for what has to happen here first: Kafka's clock starts when its own log has
/// the record, and here a sync comes before that.
pub const AT_LEAST: Duration = Duration::from_secs(1);

/// The wait that a request asks for, and [`AT_LEAST`].
pub fn timeout(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)).clamp(AT_LEAST, LONGEST)
}

/// The wait for the controller that a request asks for. Without any time nothing is begun, as in Kafka: what cannot be waited for would
/// be done behind an answer that leaves it open.
///
/// # Errors
/// `REQUEST_TIMED_OUT`.
pub fn wait(timeout_ms: i32) -> Result<Duration, ApiError> {
    if timeout_ms > 0 { Ok(timeout(timeout_ms)) } else { Err(ErrorCode::RequestTimedOut.into()) }
}

/// As [`ask`], for as long as the request says.
pub async fn ask_within<E: Env, T>(
    env: &E,
    proposal: Proposal,
    timeout_ms: i32,
    take: impl FnOnce(Outcome) -> Option<T>,
) -> Result<T, ApiError> {
    ask(env, proposal, wait(timeout_ms)?, take).await
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

/// The wire's number and text of a refusal. As in Kafka there is no text to a request that was not done in time.
pub fn wire(error: &ApiError) -> (i16, Option<Cow<'static, str>>) {
    if error.error == ErrorCode::RequestTimedOut && error.message.is_none() {
        return (error.error.code(), None);
    }
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
    fn without_any_time_the_controller_is_not_asked() {
        for timeout_ms in [0, -1, i32::MIN] {
            let refused = wait(timeout_ms).expect_err("no time");
            assert_eq!(wire(&refused), (ErrorCode::RequestTimedOut.code(), None));
            assert_eq!(timeout(timeout_ms), AT_LEAST);
        }
        assert_eq!((wait(1), wait(5000)), (Ok(AT_LEAST), Ok(Duration::from_secs(5))));
        assert_eq!(timeout(i32::MAX), LONGEST);
    }

    #[test]
    fn what_is_named_twice_is_answered_once() {
        assert_eq!(first_of_each(vec![(1, 'a'), (2, 'b'), (1, 'c')], |one| one.0), [(1, 'a'), (2, 'b')]);
    }
}
