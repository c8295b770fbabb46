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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use futures_util::future::{FutureExt, LocalBoxFuture, ready};
    use madang_actors::clock::{Mono, Wall};
    use madang_actors::prng::Prng;
    use madang_cluster::configs::BrokerConfig;
    use madang_cluster::controller::{ApiResult, LogDirStart, NewTopic, Outcome, Proposal, RegisterBroker, decide};
    use madang_cluster::metadata::MetadataImage;
    use madang_cluster::replica::ReplicaHandle;
    use madang_protocol::messages::delete_groups::DeleteGroupsRequest;
    use madang_protocol::messages::describe_groups::DescribeGroupsRequest;
    use madang_protocol::messages::heartbeat::HeartbeatRequest;
    use madang_protocol::messages::leave_group::LeaveGroupRequest;
    use madang_protocol::messages::list_groups::ListGroupsRequest;
    use madang_protocol::messages::offset_commit::{
        OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    };
    use madang_protocol::messages::offset_delete::OffsetDeleteRequest;
    use madang_protocol::messages::offset_fetch::OffsetFetchRequest;
    use madang_protocol::types::{NodeId, TopicPartition, Uuid};
    use madang_storage::RestartKind;

    use super::*;
    use crate::apis::{
        delete_groups, describe_groups, heartbeat, leave_group, list_groups, offset_commit, offset_delete, offset_fetch,
    };
    use crate::fetch_sessions::FetchSessions;
    use crate::group_placement::GroupPlacement;
    use crate::producer_ids::ProducerIds;

    /// Surroundings in which shards never answer: what is kept is how long they are given.
    #[derive(Clone)]
    struct Silent {
        config: Rc<BrokerConfig>,
        image: Arc<MetadataImage>,
        given: Rc<RefCell<Vec<Duration>>>,
        rest: Rc<(FetchSessions, ProducerIds, GroupPlacement)>,
    }

    const NOW: Mono = Mono::ZERO;

    impl Silent {
        fn give<T: 'static>(&self, deadline: Mono) -> LocalBoxFuture<'static, Result<T, ErrorCode>> {
            self.given.borrow_mut().push(deadline.saturating_since(NOW));
            ready(Err(ErrorCode::CoordinatorNotAvailable)).boxed_local()
        }
    }

    impl Env for Silent {
        fn now(&self) -> Mono {
            NOW
        }
        fn wall(&self) -> Wall {
            Wall(0)
        }
        fn random(&self) -> u64 {
            0
        }
        fn sleep_until(&self, _: Mono) -> LocalBoxFuture<'static, ()> {
            std::future::pending().boxed_local()
        }
        fn node_id(&self) -> NodeId {
            self.config.node_id
        }
        fn broker_epoch(&self) -> i64 {
            1
        }
        fn config(&self) -> &BrokerConfig {
            &self.config
        }
        fn image(&self) -> Arc<MetadataImage> {
            Arc::clone(&self.image)
        }
        fn replica(&self, _: &TopicPartition) -> Option<ReplicaHandle> {
            None
        }
        fn log_dirs(&self) -> Vec<crate::env::LogDir> {
            Vec::new()
        }
        fn fetch_sessions(&self) -> &FetchSessions {
            &self.rest.0
        }
        fn producer_ids(&self) -> &ProducerIds {
            &self.rest.1
        }
        fn group_placement(&self) -> &GroupPlacement {
            &self.rest.2
        }
        fn propose(&self, _: Proposal, _: Mono) -> LocalBoxFuture<'static, ApiResult<Outcome>> {
            std::future::pending().boxed_local()
        }
        fn group(&self, _: &str, _: Request, deadline: Mono) -> LocalBoxFuture<'static, Result<Response, ErrorCode>> {
            self.give(deadline)
        }
        fn every_group_shard(
            &self,
            _: Request,
            deadline: Mono,
        ) -> LocalBoxFuture<'static, Result<Vec<Response>, ErrorCode>> {
            self.give(deadline)
        }
        fn read<T: Send + 'static>(
            &self,
            work: impl FnOnce() -> T + Send + 'static,
        ) -> LocalBoxFuture<'static, Option<T>> {
            ready(Some(work())).boxed_local()
        }
        fn in_background(&self, _: LocalBoxFuture<'static, ()>) {}
    }

    /// One broker with one topic, `t`.
    fn image(config: &BrokerConfig) -> MetadataImage {
        let (directory, mut rng) = (Uuid([1; 16]), Prng::new(1));
        let register = Proposal::RegisterBroker(RegisterBroker {
            node_id: config.node_id,
            incarnation_id: Uuid([9; 16]),
            endpoints: Vec::new(),
            rack: None,
            log_dirs: vec![directory],
            starts: vec![LogDirStart { directory, kind: RestartKind::Lossy, broker_epoch: -1 }],
        });
        let topic = NewTopic {
            name: "t".into(),
            partitions: 1,
            replication_factor: 1,
            assignments: Vec::new(),
            configs: Vec::new(),
        };
        let create = Proposal::CreateTopics { topics: vec![topic], validate_only: false };
        let mut then = |image: &MetadataImage, one| decide(image, config, &mut rng, one).image;
        let image = then(&MetadataImage::default(), register);
        let broker_epoch = image.broker(config.node_id).expect("registered").broker_epoch;
        let image = then(&image, Proposal::UnfenceBroker { node_id: config.node_id, broker_epoch });
        then(&image, create)
    }

    fn silent(timeout_ms: &str) -> Silent {
        let pairs = [("offsets.commit.timeout.ms".to_owned(), timeout_ms.to_owned())];
        let config = BrokerConfig::parse(pairs).expect("valid").0;
        let rest = (FetchSessions::new(1), ProducerIds::default(), GroupPlacement::default());
        let image = Arc::new(image(&config));
        Silent { config: Rc::new(config), image, given: Rc::default(), rest: Rc::new(rest) }
    }

    /// Each handler asks one shard, or all, and gives it the time that the key says.
    #[test]
    fn what_a_shard_answers_at_once_may_take_as_long_as_a_commit() {
        for millis in [70, 5000] {
            let env = silent(&millis.to_string());
            let group = || std::borrow::Cow::Borrowed("g");
            let deletes = DeleteGroupsRequest { groups_names: vec![group()] };
            assert!(delete_groups::handle(&env, deletes).now_or_never().is_some());
            let describes = DescribeGroupsRequest { groups: vec![group()], ..Default::default() };
            assert!(describe_groups::handle(&env, describes, 5).now_or_never().is_some());
            let beats = HeartbeatRequest { group_id: group(), ..Default::default() };
            assert!(heartbeat::handle(&env, &beats).now_or_never().is_some());
            let leaves = LeaveGroupRequest { group_id: group(), ..Default::default() };
            assert!(leave_group::handle(&env, leaves, 1).now_or_never().is_some());
            assert!(list_groups::handle(&env, ListGroupsRequest::default()).now_or_never().is_some());
            let fetches = OffsetFetchRequest { group_id: group(), ..Default::default() };
            assert!(offset_fetch::handle(&env, fetches, 5).now_or_never().is_some());
            let topic = OffsetCommitRequestTopic {
                name: "t".into(),
                partitions: vec![OffsetCommitRequestPartition::default()],
                ..Default::default()
            };
            let commits = OffsetCommitRequest { group_id: group(), topics: vec![topic], ..Default::default() };
            assert!(offset_commit::handle(&env, commits, 8).now_or_never().is_some());
            let forgets = OffsetDeleteRequest { group_id: group(), ..Default::default() };
            assert!(offset_delete::handle(&env, forgets).now_or_never().is_some());
            assert_eq!(*env.given.borrow(), [Duration::from_millis(millis); 8]);
        }
    }
}
