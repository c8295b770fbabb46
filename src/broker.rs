//! The node as a connection sees it: one frame in, one answer out, one line for each API.
//! Invariant: every frame that is admitted ends in exactly one outcome; what is not in the protocol's table closes the connection.

use std::sync::Arc;

use bytes::Bytes;
use madang_actors::failpoint;
use madang_protocol::frame::{RequestHeader, RequestPrefix, decode_request_body, encode_response};
use madang_protocol::{ApiKey, Message, Reader, Request};
pub use madang_transport::{Admission, Outcome, PeerInfo};
use madang_transport::{Response, Service};

use crate::apis::produce::Produced;
use crate::apis::{
    alter_configs, alter_partition_reassignments, api_versions, create_partitions, create_topics, delete_groups,
    delete_records, delete_topics, describe_cluster, describe_configs, describe_groups, describe_log_dirs,
    describe_quorum, describe_topic_partitions, elect_leaders, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_groups, list_offsets,
    list_partition_reassignments, metadata, offset_commit, offset_delete, offset_fetch, offset_for_leader_epoch,
    produce, sync_group, unregister_broker,
};
use crate::env::{Client, Env};

/// What frames of client listeners are given to.
#[derive(Clone, Debug)]
pub struct Broker<E> {
    env: E,
}

impl<E: Env> Broker<E> {
    /// A broker over these surroundings.
    #[must_use]
    pub const fn new(env: E) -> Self {
        Self { env }
    }
}

impl<E: Env> Service for Broker<E> {
    type Connection = PeerInfo;

    fn accepted(&self, peer: &PeerInfo) -> PeerInfo {
        peer.clone()
    }

    fn overlaps(&self, frame: &Bytes) -> bool {
        overlaps(frame)
    }

    async fn admit(&self, connection: &mut PeerInfo, frame: Bytes) -> Admission {
        admit(&self.env, connection, frame).await
    }
}

/// Whether a frame may be admitted while earlier ones of its kind are still completing: a Produce.
#[must_use]
pub fn overlaps(frame: &Bytes) -> bool {
    RequestPrefix::peek(frame).is_ok_and(|prefix| prefix.api_key == ApiKey::Produce.code())
}

/// Admits one frame: reads the header, picks the handler, encodes what it answers.
pub async fn admit<E: Env>(env: &E, peer: &PeerInfo, frame: Bytes) -> Admission {
    let mut reader = Reader::new(&frame);
    if let Some(answer) = unsupported_api_versions(&frame) {
        return answer;
    }
    let Ok(header) = RequestHeader::decode(&mut reader) else {
        return Outcome::Close("unreadable or unknown request header").into();
    };
    if !header.api_key.api().served.contains(header.api_version) {
        return Outcome::Close("unsupported version").into();
    }
    let client = Client {
        listener: peer.listener.clone(),
        address: peer.peer_addr,
        id: Arc::from(header.client_id.as_deref().unwrap_or_default()),
    };
    let call =
        Call { env, client: &client, key: header.api_key, version: header.api_version, id: header.correlation_id };
    call.run(&mut reader).await
}

/// ApiVersions of a version that is not served is answered in version 0, so that the client can choose another (KIP-511).
fn unsupported_api_versions(frame: &Bytes) -> Option<Admission> {
    let prefix = RequestPrefix::peek(frame).ok()?;
    let key = ApiKey::ApiVersions;
    let is_it = prefix.api_key == key.code() && !key.api().served.contains(prefix.api_version);
    is_it.then(|| respond(prefix.correlation_id, key, 0, &api_versions::unsupported()).into())
}

fn respond<'a, M: Message<'a>>(correlation_id: i32, key: ApiKey, version: i16, body: &M) -> Outcome {
    match encode_response(correlation_id, key, version, body) {
        Ok(chunks) => Response::new(chunks).into(),
        Err(error) => {
            tracing::error!(?key, version, %error, "answer cannot be encoded");
            Outcome::Close("answer cannot be encoded")
        }
    }
}

/// What a client of partitions hears of a node that is cut off is the last it hears of it for now: one that has a connection to no other node, as all it
/// uses was led here, would ask this one for ever who leads, and be told of itself.
async fn sent_elsewhere<E: Env>(env: &E, answer: Outcome) -> Outcome {
    match (answer, env.sends_elsewhere()) {
        (Outcome::Respond(response), Some(at)) => {
            env.sleep_until(at).await;
            response.closing("no controller for a session").into()
        }
        (answer, _) => answer,
    }
}

/// One request on its way to its handler.
struct Call<'c, E> {
    env: &'c E,
    client: &'c Client,
    key: ApiKey,
    version: i16,
    id: i32,
}

impl<E: Env> Call<'_, E> {
    fn body<'a, R: Request<'a>>(&self, reader: &mut Reader<'a>) -> Result<R, Outcome> {
        decode_request_body(reader, self.version).map_err(|error| {
            tracing::debug!(key = ?self.key, version = self.version, %error, client = %self.client.address, "unreadable request");
            Outcome::Close("unreadable request")
        })
    }

    fn done<'a, M: Message<'a>>(&self, body: &M) -> Outcome {
        respond(self.id, self.key, self.version, body)
    }

    async fn run(&self, reader: &mut Reader<'_>) -> Admission {
        if failpoint::hit("connection", self.key.api().name).is_some() {
            panic!("planted: a connection handles {}", self.key.api().name);
        }
        if self.key == ApiKey::Produce {
            return self.produce(reader).await;
        }
        match self.answer(reader).await {
            Ok(outcome) | Err(outcome) => Admission::Done(outcome),
        }
    }

    async fn produce(&self, reader: &mut Reader<'_>) -> Admission {
        let request = match self.body(reader) {
            Ok(request) => request,
            Err(outcome) => return outcome.into(),
        };
        let (id, key, version, env) = (self.id, self.key, self.version, self.env.clone());
        match produce::admit(self.env, self.client, request, version).await {
            Produced::Answer(answer) => Admission::Completing(Box::pin(async move {
                let answer = respond(id, key, version, &answer.await);
                sent_elsewhere(&env, answer).await
            })),
            Produced::Silent(appended) => Admission::Completing(Box::pin(async move {
                if appended.await { Outcome::Silent } else { Outcome::Close("produce with acks=0 failed") }
            })),
        }
    }

    async fn answer(&self, reader: &mut Reader<'_>) -> Result<Outcome, Outcome> {
        let (env, client, version) = (self.env, self.client, self.version);
        Ok(match self.key {
            ApiKey::Produce => return Err(Outcome::Close("produce has a path of its own")),
            ApiKey::Fetch => {
                let answer = self.done(&fetch::handle(env, client, self.body(reader)?, version).await);
                sent_elsewhere(env, answer).await
            }
            ApiKey::ListOffsets => self.done(&list_offsets::handle(env, &self.body(reader)?, version).await),
            ApiKey::Metadata => self.done(&metadata::handle(env, client, &self.body(reader)?, version)),
            ApiKey::OffsetCommit => self.done(&offset_commit::handle(env, self.body(reader)?, version).await),
            ApiKey::OffsetFetch => self.done(&offset_fetch::handle(env, self.body(reader)?, version).await),
            ApiKey::FindCoordinator => self.done(&find_coordinator::handle(env, client, &self.body(reader)?, version)),
            ApiKey::JoinGroup => self.done(&join_group::handle(env, client, self.body(reader)?, version).await),
            ApiKey::Heartbeat => self.done(&heartbeat::handle(env, &self.body(reader)?).await),
            ApiKey::LeaveGroup => self.done(&leave_group::handle(env, self.body(reader)?, version).await),
            ApiKey::SyncGroup => self.done(&sync_group::handle(env, self.body(reader)?).await),
            ApiKey::DescribeGroups => self.done(&describe_groups::handle(env, self.body(reader)?, version).await),
            ApiKey::ListGroups => self.done(&list_groups::handle(env, self.body(reader)?).await),
            ApiKey::ApiVersions => self.done(&api_versions::handle(&self.body(reader)?, version)),
            ApiKey::CreateTopics => self.done(&create_topics::handle(env, self.body(reader)?).await),
            ApiKey::DeleteTopics => self.done(&delete_topics::handle(env, self.body(reader)?, version).await),
            ApiKey::DeleteRecords => self.done(&delete_records::handle(env, self.body(reader)?).await),
            ApiKey::InitProducerId => self.done(&init_producer_id::handle(env, &self.body(reader)?).await),
            ApiKey::OffsetForLeaderEpoch => self.done(&offset_for_leader_epoch::handle(env, &self.body(reader)?)),
            ApiKey::DescribeConfigs => self.done(&describe_configs::handle(env, self.body(reader)?)),
            ApiKey::AlterConfigs => self.done(&alter_configs::handle(env, self.body(reader)?).await),
            ApiKey::CreatePartitions => self.done(&create_partitions::handle(env, self.body(reader)?).await),
            ApiKey::DeleteGroups => self.done(&delete_groups::handle(env, self.body(reader)?).await),
            ApiKey::IncrementalAlterConfigs => {
                self.done(&incremental_alter_configs::handle(env, self.body(reader)?).await)
            }
            ApiKey::ListPartitionReassignments => {
                self.done(&list_partition_reassignments::handle(env, &self.body(reader)?))
            }
            ApiKey::AlterPartitionReassignments => {
                self.done(&alter_partition_reassignments::handle(env, self.body(reader)?).await)
            }
            ApiKey::DescribeLogDirs => self.done(&describe_log_dirs::handle(env, self.body(reader)?).await),
            ApiKey::ElectLeaders => self.done(&elect_leaders::handle(env, self.body(reader)?).await),
            ApiKey::DescribeQuorum => self.done(&describe_quorum::handle(env, self.body(reader)?).await),
            ApiKey::UnregisterBroker => self.done(&unregister_broker::handle(env, &self.body(reader)?).await),
            ApiKey::DescribeTopicPartitions => self.done(&describe_topic_partitions::handle(env, &self.body(reader)?)),
            ApiKey::OffsetDelete => self.done(&offset_delete::handle(env, self.body(reader)?).await),
            ApiKey::DescribeCluster => self.done(&describe_cluster::handle(env, client, &self.body(reader)?, version)),
        })
    }
}
