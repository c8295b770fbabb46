//! Leaders and followers, one input at a time, over a disk in memory: what the tests of each responsibility are built on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::record_batch::{BatchBuilder, BatchHeader, BatchOptions, ProduceRules, ValidatedBatch, stamp};
use madang_protocol::types::{LeaderEpoch, NodeId, Offset};
use madang_storage::{Disk, FaultDisk, Log, LogConfig, Note, OpenLog, Start, SyncRequest};

mod cuts;
mod following;
mod lag;
mod leading;
mod restarts;

use super::replication::{
    Assignment, Confirmed, FetchAnswer, FetchBody, FetchPosition, Fetched, FollowerFetch, IsrProposal, Loss,
    ProposalOutcome, ReplicationEffect, ReplicationInput,
};
use super::*;

const LAG: Duration = Duration::from_secs(30);

struct Fixture {
    disk: FaultDisk,
    replica: Replica,
    now: Mono,
    config: ReplicaConfig,
    syncs: Vec<SyncRequest>,
    asked: Vec<ReplicationEffect>,
    replies: Vec<(RequestId, AppendResult)>,
    snapshot: Option<Arc<ReplicaSnapshot>>,
    next_request: u64,
}

fn set(nodes: &[i32]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

fn config(durability: Durability) -> ReplicaConfig {
    ReplicaConfig {
        log: LogConfig::default(),
        produce: ProduceRules::default(),
        durability,
        min_in_sync_replicas: 2,
        deletes_old_records: true,
        compaction: None,
        replication_factor: 3,
        in_sync_replicas: 1,
        replica_lag_time_max: LAG,
    }
}

fn open(disk: &FaultDisk, start: Start, incarnation: u64, noted: Option<Note>) -> Log {
    let open = OpenLog { start, incarnation, noted, ..OpenLog::default() };
    let opened = Log::open(Arc::new(disk.clone()), Path::new("/data/orders-0"), LogConfig::default(), &open);
    opened.expect("opens").0
}

fn record() -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(0, None, Some(&[7; 20]), &[]).expect("fits");
    builder.build().expect("a batch")
}

fn stamped(offset: i64, epoch: i32) -> Vec<u8> {
    let mut bytes = record().to_vec();
    stamp(&mut bytes, Offset(offset), LeaderEpoch(epoch));
    bytes
}

/// Node 1 of three, all registered with broker epoch 10 + node id.
fn assignment(leader: i32, epoch: i32, partition_epoch: i32, in_sync: &[i32]) -> Box<Assignment> {
    Box::new(Assignment {
        node_id: NodeId(1),
        leader: (leader > 0).then_some(NodeId(leader)),
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch,
        assigned_replicas: set(&[1, 2, 3]),
        in_sync_replicas: set(in_sync),
        eligible_leader_replicas: BTreeSet::new(),
        broker_epochs: [1, 2, 3].into_iter().map(|node| (NodeId(node), 10 + i64::from(node))).collect(),
        unclean_epoch: LeaderEpoch::NONE,
        reported_loss: None,
    })
}

impl Fixture {
    fn new(durability: Durability) -> Self {
        let disk = FaultDisk::new();
        disk.create_dir(Path::new("/data")).expect("creates");
        let config = config(durability);
        let replica = Replica::new(1, open(&disk, Start::Unclean, 1, None), config.clone(), None).expect("new");
        Self {
            disk,
            replica,
            now: Mono::ZERO,
            config,
            syncs: Vec::new(),
            asked: Vec::new(),
            replies: Vec::new(),
            snapshot: None,
            next_request: 0,
        }
    }

    /// A leader of epoch 5 with these nodes in sync.
    fn leader(durability: Durability, in_sync: &[i32]) -> Self {
        let mut fixture = Self::new(durability);
        fixture.assign(assignment(1, 5, 7, in_sync));
        fixture
    }

    fn input(&mut self, input: ReplicaInput) {
        let mut effects = Vec::new();
        self.replica.step(self.now, Wall(0), input, &mut Prng::new(0), &mut effects);
        self.replica.check();
        for effect in effects {
            match effect {
                ReplicaEffect::Publish(snapshot) => self.snapshot = Some(snapshot),
                ReplicaEffect::Sync(request) => self.syncs.push(request),
                ReplicaEffect::Reply { request, result } => self.replies.push((request, result)),
                ReplicaEffect::Replication(asked) => self.asked.push(asked),
                ReplicaEffect::ReplyDeleted { result, .. } => assert!(result.is_ok(), "{result:?}"),
                other => panic!("{other:?}"),
            }
        }
    }

    fn replicate(&mut self, input: ReplicationInput) {
        self.input(ReplicaInput::Replication(input));
    }

    fn assign(&mut self, assignment: Box<Assignment>) {
        self.replicate(ReplicationInput::Assign(assignment));
    }

    fn append(&mut self) -> RequestId {
        self.append_bytes(record())
    }

    /// One record of producer 7 in its first epoch.
    fn append_numbered(&mut self, base_sequence: i32) -> RequestId {
        let options = BatchOptions { producer_id: 7, producer_epoch: 0, base_sequence, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        builder.append(0, None, Some(&[7; 20]), &[]).expect("fits");
        self.append_bytes(builder.build().expect("a batch"))
    }

    fn append_bytes(&mut self, bytes: Bytes) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let header = BatchHeader::parse(&bytes).expect("a header");
        let batch = ValidatedBatch { bytes, header, max_timestamp: 0, max_timestamp_offset_delta: 0 };
        let deadline = self.now + Duration::from_secs(60);
        let required_acks = RequiredAcks::All;
        self.input(ReplicaInput::Append(Append { request, batch, required_acks, deadline, expected_epoch: None }));
        self.input(ReplicaInput::EndBatch);
        request
    }

    fn sync(&mut self) {
        while !self.syncs.is_empty() {
            let outcome = self.syncs.remove(0).perform();
            self.input(ReplicaInput::Synced(outcome));
        }
    }

    /// A fetch of the follower's first life, as the shell passes it on.
    fn fetch(&mut self, node: i32, fetch_offset: i64, confirmed: i64) {
        self.fetch_of(node, 1, 10 + i64::from(node), fetch_offset, confirmed);
    }

    fn fetch_of(&mut self, node: i32, incarnation: u64, broker_epoch: i64, fetch_offset: i64, confirmed: i64) {
        let position = FetchPosition {
            leader: NodeId(1),
            leader_epoch: LeaderEpoch(5),
            incarnation,
            fetch_offset: Offset(fetch_offset),
            last_fetched_epoch: if fetch_offset == 0 { LeaderEpoch::NONE } else { LeaderEpoch(5) },
            confirmed_offset: Offset(confirmed),
            known: None,
            after_error: false,
        };
        let snapshot = self.snapshot.clone().expect("published");
        assert_eq!(snapshot.judge(&position), Ok(()));
        let fetch = FollowerFetch { node_id: NodeId(node), broker_epoch, position };
        let leader_incarnation = snapshot.incarnation;
        self.replicate(ReplicationInput::Fetched(Fetched { fetch, leader_incarnation }));
    }

    fn confirm(&mut self, node: i32, epoch: i32, confirmed: i64) {
        self.replicate(ReplicationInput::Confirmed(Confirmed {
            node_id: NodeId(node),
            broker_epoch: 10 + i64::from(node),
            incarnation: 1,
            leader_epoch: LeaderEpoch(epoch),
            confirmed_offset: Offset(confirmed),
        }));
    }

    fn high_watermark(&self) -> i64 {
        let published = self.snapshot.as_ref().expect("published").high_watermark;
        assert_eq!(published, self.replica.high_watermark());
        published.0
    }

    fn maximal(&self) -> BTreeSet<NodeId> {
        self.snapshot.as_ref().expect("published").maximal_isr.iter().copied().collect()
    }

    /// The proposals made since the last call: their members and numbers.
    fn proposals(&mut self) -> Vec<IsrProposal> {
        let asked = std::mem::take(&mut self.asked).into_iter();
        asked
            .filter_map(|asked| match asked {
                ReplicationEffect::Propose(proposal) => Some(proposal),
                _ => None,
            })
            .collect()
    }

    fn proposed(&mut self) -> Vec<Vec<i32>> {
        let members = |proposal: IsrProposal| proposal.members.iter().map(|member| member.node_id.0).collect();
        self.proposals().into_iter().map(members).collect()
    }

    fn answered(&self, request: RequestId) -> Option<Result<i64, ErrorCode>> {
        let found = self.replies.iter().find(|(answered, _)| *answered == request);
        found.map(|(_, result)| result.as_ref().map(|appended| appended.base_offset.0).map_err(|refused| refused.error))
    }

    fn follow(&mut self, answer: FetchBody) {
        let log = self.replica.log().expect("open");
        let answer = FetchAnswer {
            leader_epoch: self.replica.known.0,
            incarnation: self.replica.incarnation,
            fetch_offset: log.log_end_offset(),
            body: answer,
        };
        self.replicate(ReplicationInput::Answered(answer));
    }

    fn next_fetch(&mut self) -> FetchPosition {
        match self.asked.pop() {
            Some(ReplicationEffect::Fetch(position)) => position,
            other => panic!("{other:?}"),
        }
    }

    /// The log is cut where the leader's parts from it: the recovery point is lowered, the cut is synced.
    fn cut(&mut self, epoch: i32, end_offset: i64) {
        self.follow(FetchBody::Diverging { epoch: LeaderEpoch(epoch), end_offset: Offset(end_offset) });
        match self.asked.pop() {
            Some(ReplicationEffect::LowerRecoveryPoint { number, .. }) => {
                self.replicate(ReplicationInput::Lowered(number));
            }
            other => panic!("{other:?}"),
        }
        self.sync();
    }

    /// The replica panics and is rebuilt in its process.
    fn restart(&mut self) -> Result<(), LostRecords> {
        let incarnation = self.replica.incarnation + 1;
        let before = self.snapshot.clone();
        let noted = before.as_ref().map(|before| before.note());
        self.syncs.clear();
        let log = open(&self.disk, Start::SameProcess, incarnation, noted);
        self.replica = Replica::new(incarnation, log, self.config.clone(), before.as_deref())?;
        Ok(())
    }
}

fn records(of: &[(i64, i32)], high_watermark: i64) -> FetchBody {
    FetchBody::Records {
        records: of.iter().flat_map(|(offset, epoch)| stamped(*offset, *epoch)).collect::<Vec<_>>().into(),
        high_watermark: Offset(high_watermark),
        log_start_offset: Offset::ZERO,
    }
}
