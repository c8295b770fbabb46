//! Fetch requests on their way: at most one per broker. They go on while nobody polls.
//! Invariant: an answer is handed out with what was asked, so that whoever moved a position meanwhile can tell that it is not for him.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use madang_protocol::ErrorCode;
use madang_protocol::messages::fetch::{FetchRequest, FetchResponse, PartitionData};
use madang_protocol::types::{NodeId, TopicId};
use tokio::task::JoinSet;

use super::ConsumerConfig;
use super::session::{Key, Place, Session, Wanted};
use crate::client::{Client, Lane};
use crate::connection::Call;
use crate::error::{ConnectionError, check};
use crate::metadata::Broker;

/// Fetch from this version on names topics by id.
const FETCH_BY_ID: i16 = 13;

/// What one broker answered.
pub(super) struct Answered {
    /// Everything that it was asked for.
    pub(super) wanted: Wanted,
    /// What came; `None` if there was no usable answer. A session leaves out what is not new.
    pub(super) parts: Option<Vec<(Key, PartitionData)>>,
}

struct Returned {
    node: NodeId,
    wanted: Wanted,
    outcome: Result<FetchResponse<'static>, ConnectionError>,
}

#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client,
    config: ConsumerConfig,
    lane: Lane,
    sessions: BTreeMap<NodeId, Session>,
    busy: BTreeSet<NodeId>,
    on_their_way: JoinSet<Returned>,
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.client.close_lane(self.lane);
    }
}

impl Fetcher {
    pub(super) fn new(client: Client, config: ConsumerConfig) -> Self {
        let lane = client.new_lane();
        let (sessions, busy, on_their_way) = (BTreeMap::new(), BTreeSet::new(), JoinSet::new());
        Self { client, config, lane, sessions, busy, on_their_way }
    }

    pub(super) fn is_busy(&self, node: NodeId) -> bool {
        self.busy.contains(&node)
    }

    /// Whether no request is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.on_their_way.is_empty()
    }

    /// Asks one broker, which waits for `max_wait` at most.
    pub(super) fn start(&mut self, broker: Broker, wanted: Wanted, max_wait: Duration) {
        let session = self.sessions.entry(broker.node_id).or_default();
        let mut request = session.request(&wanted, &self.config);
        request.max_wait_ms = i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX);
        let call = self.client.call();
        let call = Call { timeout: call.timeout.saturating_add(max_wait), ..call };
        let by_name = wanted.values().any(|place| place.topic_id.is_zero());
        let call = if by_name { call.up_to(FETCH_BY_ID - 1) } else { call };
        self.busy.insert(broker.node_id);
        self.on_their_way.spawn(send(self.client.clone(), self.lane, broker, request, call, wanted));
    }

    /// The next answer; `None` if nothing is on its way. Giving up on the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Answered> {
        let Ok(returned) = self.on_their_way.join_next().await? else {
            // A task that panicked does not say whose it was: all sessions begin anew.
            self.on_their_way.abort_all();
            self.busy.clear();
            self.sessions.clear();
            return Some(Answered { wanted: Wanted::new(), parts: None });
        };
        let Returned { node, wanted, outcome } = returned;
        self.busy.remove(&node);
        let session = self.sessions.entry(node).or_default();
        let Ok(answer) = outcome else {
            session.lost();
            return Some(Answered { wanted, parts: None });
        };
        if let Err(code) = check(answer.error_code) {
            session.lost();
            // A broker keeps so many sessions and no more: the next request asks for everything again.
            let is_forgotten = matches!(code, ErrorCode::FetchSessionIdNotFound | ErrorCode::InvalidFetchSessionEpoch);
            return Some(Answered { wanted, parts: is_forgotten.then(Vec::new) });
        }
        session.answered(answer.session_id, &wanted);
        let parts = Some(parts(answer, &wanted));
        Some(Answered { wanted, parts })
    }
}

/// What the answer has of what was asked. Version 13 and later answer by id, earlier ones by name.
fn parts(answer: FetchResponse<'static>, wanted: &Wanted) -> Vec<(Key, PartitionData)> {
    let id = |((name, _), place): (&Key, &Place)| (place.topic_id, Arc::clone(name));
    let by_id: HashMap<TopicId, Arc<str>> = wanted.iter().map(id).collect();
    let mut parts = Vec::new();
    for topic in answer.responses {
        let name = if topic.topic.is_empty() {
            by_id.get(&topic.topic_id).filter(|_| !topic.topic_id.is_zero()).cloned()
        } else {
            Some(Arc::from(&*topic.topic))
        };
        let Some(name) = name else { continue };
        for data in topic.partitions {
            let key = (Arc::clone(&name), data.partition_index);
            if wanted.contains_key(&key) {
                parts.push((key, data));
            }
        }
    }
    parts
}

async fn send(
    client: Client,
    lane: Lane,
    broker: Broker,
    request: FetchRequest<'static>,
    call: Call,
    wanted: Wanted,
) -> Returned {
    let outcome = client.to(&broker, lane, &request, call).await;
    Returned { node: broker.node_id, wanted, outcome }
}
