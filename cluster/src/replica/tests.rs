//! Leaders and followers, one input at a time, over a disk in memory.

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
use madang_storage::{Disk, FaultDisk, Log, LogConfig, OpenLog, Start, SyncRequest};

mod lag;

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

fn open(disk: &FaultDisk, start: Start, incarnation: u64, confirmed: Option<Offset>) -> Log {
    let open = OpenLog { start, incarnation, recovery_point: confirmed, ..OpenLog::default() };
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
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let bytes = record();
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

    /// The replica panics and is rebuilt in its process.
    fn restart(&mut self) -> Result<(), LostRecords> {
        let incarnation = self.replica.incarnation + 1;
        let before = self.snapshot.clone();
        let confirmed = before.as_ref().map(|before| before.confirmed_end);
        self.syncs.clear();
        let log = open(&self.disk, Start::SameProcess, incarnation, confirmed);
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

#[test]
fn the_high_watermark_waits_for_the_slowest_in_sync_replica_and_for_its_own_log() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2, 3]);
    let request = leader.append();
    leader.fetch(2, 1, 1);
    leader.fetch(3, 1, 1);
    assert_eq!((leader.high_watermark(), leader.answered(request)), (0, None), "its own sync is under way");
    leader.sync();
    assert_eq!((leader.high_watermark(), leader.answered(request)), (1, Some(Ok(0))));
    let request = leader.append();
    leader.sync();
    leader.fetch(2, 2, 2);
    leader.fetch(3, 2, 1);
    assert_eq!((leader.high_watermark(), leader.answered(request)), (1, None));
    leader.confirm(3, 5, 2);
    assert_eq!((leader.high_watermark(), leader.answered(request)), (2, Some(Ok(1))));
}

#[test]
fn page_cache_counts_what_was_fetched_and_fsync_only_what_is_confirmed() {
    for (durability, reached) in [(Durability::PageCache, 1), (Durability::Fsync, 0)] {
        let mut leader = Fixture::leader(durability, &[1, 2]);
        leader.append();
        leader.sync();
        leader.fetch(2, 1, 0);
        assert_eq!(leader.high_watermark(), reached, "{durability:?}");
    }
}

#[test]
fn under_min_in_sync_replicas_nothing_is_appended_and_the_high_watermark_stands() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    let written = leader.append();
    leader.sync();
    leader.assign(assignment(1, 5, 8, &[1]));
    let refused = leader.append();
    assert_eq!(leader.answered(refused), Some(Err(ErrorCode::NotEnoughReplicas)));
    assert_eq!((leader.high_watermark(), leader.answered(written)), (0, None), "alone it may not acknowledge");
    leader.now = leader.now + Duration::from_secs(61);
    leader.input(ReplicaInput::Tick);
    assert_eq!(leader.answered(written), Some(Err(ErrorCode::NotEnoughReplicasAfterAppend)));
}

#[test]
fn a_follower_joins_when_its_counted_offset_has_the_high_watermark_and_the_epochs_start() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    leader.append();
    leader.sync();
    leader.fetch(2, 1, 1);
    assert_eq!(leader.high_watermark(), 1);
    leader.fetch(3, 1, 0);
    assert!(leader.proposed().is_empty(), "it has the record and has not confirmed it");
    leader.confirm(3, 5, 1);
    assert_eq!(leader.maximal(), set(&[1, 2, 3]), "published before it is sent");
    let proposals = leader.proposals();
    let [proposal] = &proposals[..] else { panic!("{proposals:?}") };
    assert_eq!((proposal.partition_epoch, proposal.leader_epoch), (7, LeaderEpoch(5)));
    let member = proposal.members[2];
    assert_eq!((member.node_id, member.broker_epoch, member.incarnation), (NodeId(3), 13, 1));
    leader.append();
    leader.sync();
    leader.fetch(2, 2, 2);
    assert_eq!(leader.high_watermark(), 1, "the controller may count on 3 already");
}

#[test]
fn a_new_leader_lets_nobody_join_below_its_epochs_start() {
    let mut leader = Fixture::new(Durability::PageCache);
    leader.assign(assignment(2, 4, 6, &[1, 2]));
    leader.follow(records(&[(0, 4), (1, 4)], 0));
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    let snapshot = leader.snapshot.clone().expect("published");
    assert_eq!((snapshot.epoch_start, snapshot.end_for_clients()), (Offset(2), Err(ErrorCode::OffsetNotAvailable)));
    leader.asked.clear();
    let position = FetchPosition {
        leader: NodeId(1),
        leader_epoch: LeaderEpoch(5),
        incarnation: 1,
        fetch_offset: Offset(1),
        last_fetched_epoch: LeaderEpoch(4),
        confirmed_offset: Offset(1),
        after_error: false,
    };
    let fetch = FollowerFetch { node_id: NodeId(3), broker_epoch: 13, position };
    leader.replicate(ReplicationInput::Fetched(Fetched { fetch, leader_incarnation: 1 }));
    assert!(leader.proposed().is_empty(), "it is above the high watermark, which may be stale");
    leader.fetch(2, 2, 0);
    let snapshot = leader.snapshot.clone().expect("published");
    assert_eq!(snapshot.end_for_clients(), Ok(Offset(2)));
    leader.fetch(3, 2, 0);
    assert_eq!(leader.proposed(), [[1, 2, 3]]);
}

#[test]
fn the_high_watermark_waits_for_one_that_is_about_to_join() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    leader.fetch(2, 0, 0);
    leader.fetch(3, 0, 0);
    assert_eq!(leader.proposed(), [[1, 2, 3]], "nothing is acknowledged yet, so it has all of it");
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    leader.append();
    leader.sync();
    leader.fetch(2, 1, 1);
    leader.fetch(3, 1, 0);
    leader.confirm(3, 5, 1);
    let number = leader.proposals()[0].number;
    let outcome = ProposalOutcome::Refused(ErrorCode::IneligibleReplica);
    leader.replicate(ReplicationInput::ProposalEnded { number, outcome });
    assert_eq!(leader.maximal(), set(&[1, 2]));
    leader.append();
    leader.sync();
    leader.fetch(2, 2, 2);
    assert_eq!(leader.high_watermark(), 1, "3 was caught up a moment ago");
    leader.now = leader.now + LAG + Duration::from_millis(1);
    leader.fetch(2, 2, 2);
    assert_eq!(leader.high_watermark(), 2);
}

#[test]
fn one_that_lags_or_is_silent_is_dropped_and_counts_until_that_is_committed() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2, 3]);
    leader.append();
    leader.sync();
    leader.fetch(2, 1, 1);
    leader.fetch(3, 0, 0);
    assert_eq!(leader.replica.deadline(), Some(Mono::ZERO + LAG + Duration::from_millis(1)));
    leader.now = leader.replica.deadline().expect("one lags");
    leader.input(ReplicaInput::Tick);
    assert_eq!(leader.proposed(), [[1, 2]]);
    leader.fetch(2, 1, 1);
    assert_eq!(leader.high_watermark(), 0, "3 may still be asked to lead");
    leader.assign(assignment(1, 5, 8, &[1, 2]));
    assert_eq!(leader.high_watermark(), 1);
    leader.replicate(ReplicationInput::Silent(NodeId(2)));
    assert_eq!(leader.proposed(), [[1]]);
}

#[test]
fn a_fetch_of_another_epoch_life_or_leader_counts_for_nothing() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append();
    leader.fetch_of(2, 2, 12, 0, 0);
    leader.fetch_of(2, 1, 12, 1, 1);
    assert_eq!(leader.high_watermark(), 0, "an older life of the follower");
    leader.fetch_of(2, 9, 11, 1, 1);
    assert_eq!(leader.high_watermark(), 0, "an older registration");
    leader.restart().expect("nothing is lost");
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    let position = FetchPosition {
        leader: NodeId(1),
        leader_epoch: LeaderEpoch(5),
        incarnation: 2,
        fetch_offset: Offset(1),
        last_fetched_epoch: LeaderEpoch(5),
        confirmed_offset: Offset(1),
        after_error: false,
    };
    let fetch = FollowerFetch { node_id: NodeId(2), broker_epoch: 12, position };
    leader.replicate(ReplicationInput::Fetched(Fetched { fetch, leader_incarnation: 1 }));
    assert_eq!(leader.high_watermark(), 0, "judged by a snapshot of the leader's last life");
    leader.confirm(2, 4, 1);
    assert_eq!(leader.high_watermark(), 0, "another epoch");
    leader.replicate(ReplicationInput::Fetched(Fetched { fetch, leader_incarnation: 2 }));
    assert_eq!(leader.high_watermark(), 1);
}

#[test]
fn a_restarted_leader_keeps_its_epoch_high_watermark_and_the_proposal_in_flight() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append();
    leader.fetch(2, 1, 0);
    leader.fetch(3, 1, 0);
    assert_eq!((leader.high_watermark(), leader.proposed()), (1, vec![vec![1, 2, 3]]));
    leader.append();
    leader.restart().expect("nothing is lost");
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    let snapshot = leader.snapshot.clone().expect("published");
    assert_eq!((snapshot.leader_epoch, leader.high_watermark()), (Some(LeaderEpoch(5)), 1));
    assert_eq!(leader.maximal(), set(&[1, 2, 3]));
    leader.fetch(2, 2, 0);
    assert_eq!(leader.high_watermark(), 1, "3 has not fetched from this life");
    assert_eq!(leader.proposed(), [[1, 2]], "it asks what of its last proposal is in force");
    leader.assign(assignment(1, 5, 8, &[1, 2]));
    assert_eq!((leader.maximal(), leader.high_watermark()), (set(&[1, 2]), 2));
}

#[test]
fn a_replica_that_found_less_serves_nobody_until_the_controller_knows() {
    let mut leader = Fixture::leader(Durability::PageCache, &[1, 2]);
    leader.append();
    leader.append();
    leader.fetch(2, 2, 0);
    assert_eq!(leader.high_watermark(), 2);
    leader.syncs.clear();
    let path = Path::new("/data/orders-0/00000000000000000000.log");
    let end = leader.disk.open(path, madang_storage::OpenMode::Existing).expect("there").len().expect("a length");
    leader.disk.overwrite(path, end - 5, &[0xff; 5]).expect("damages the last record");
    let lost = leader.restart().expect_err("one record is gone");
    let log = open(&leader.disk, Start::SameProcess, 3, None);
    leader.replica = Replica::after_loss(3, log, leader.config.clone(), lost);
    leader.asked.clear();
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    let loss = Loss { incarnation: 3, published: Offset(2), found: Offset(1) };
    assert_eq!(leader.asked, [ReplicationEffect::ReportLoss(loss)]);
    let refused = leader.append();
    assert_eq!(leader.answered(refused), Some(Err(ErrorCode::KafkaStorageError)));
    leader.asked.clear();
    leader.restart().expect("nothing is lost again");
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    assert_eq!(leader.asked, [ReplicationEffect::ReportLoss(loss)], "dying forgets no loss");
    leader.asked.clear();
    leader.assign(assignment(2, 6, 7, &[2]));
    assert_eq!(leader.asked, [ReplicationEffect::ReportLoss(loss)], "a state without it in sync proves nothing");
    leader.asked.clear();
    let sole = Assignment { reported_loss: Some(3), ..*assignment(1, 7, 8, &[1]) };
    leader.assign(Box::new(sole));
    let leads = leader.snapshot.as_ref().expect("published");
    assert_eq!(
        (leads.leader_epoch, leads.loss),
        (Some(LeaderEpoch(7)), None),
        "the controller knows, and has nobody else"
    );
    assert!(leader.asked.is_empty());
}

#[test]
fn a_follower_takes_records_tells_its_durable_end_at_once_and_hears_the_high_watermark() {
    let mut follower = Fixture::new(Durability::Fsync);
    follower.assign(assignment(2, 5, 7, &[1, 2, 3]));
    let fetch = follower.next_fetch();
    assert_eq!((fetch.fetch_offset, fetch.last_fetched_epoch), (Offset(0), LeaderEpoch::NONE));
    follower.follow(records(&[(0, 4), (1, 5)], 1));
    let fetch = follower.next_fetch();
    assert_eq!(
        (fetch.fetch_offset, fetch.last_fetched_epoch, fetch.confirmed_offset.0),
        (Offset(2), LeaderEpoch(5), 0)
    );
    assert_eq!(follower.high_watermark(), 0, "no more than it has on its device");
    follower.sync();
    let confirmed_offset = Offset(2);
    let told = ReplicationEffect::Confirm { leader: NodeId(2), leader_epoch: LeaderEpoch(5), confirmed_offset };
    assert_eq!((follower.asked.pop(), follower.high_watermark()), (Some(told), 1));
    let refused = follower.append();
    assert_eq!(follower.answered(refused), Some(Err(ErrorCode::NotLeaderOrFollower)));
}

#[test]
fn a_follower_confirms_nothing_before_its_log_is_found_to_agree() {
    let mut replica = Fixture::leader(Durability::Fsync, &[1, 2]);
    replica.append();
    replica.assign(assignment(2, 6, 8, &[1, 2]));
    replica.asked.clear();
    replica.sync();
    assert!(replica.asked.is_empty(), "its record of epoch 5 may not be the leader's");
    replica.follow(FetchBody::Diverging { epoch: LeaderEpoch(4), end_offset: Offset(0) });
    assert_eq!(replica.next_fetch().fetch_offset, Offset(0));
}

#[test]
fn a_leader_that_steps_down_leaves_open_what_waits() {
    let mut leader = Fixture::leader(Durability::Fsync, &[1, 2]);
    let request = leader.append();
    leader.assign(assignment(2, 6, 8, &[1, 2]));
    assert_eq!(leader.answered(request), Some(Err(ErrorCode::NotLeaderOrFollower)));
    leader.assign(assignment(1, 5, 7, &[1, 2]));
    assert_eq!(leader.snapshot.as_ref().expect("published").leader_epoch, None, "an older state is dropped");
}

#[test]
fn a_follower_is_never_cut_below_its_high_watermark_unless_an_unclean_election_is_on_record() {
    let mut follower = Fixture::new(Durability::PageCache);
    follower.assign(assignment(2, 5, 7, &[1, 2]));
    follower.follow(records(&[(0, 5), (1, 5)], 2));
    follower.follow(records(&[], 2));
    assert_eq!(follower.high_watermark(), 2);
    follower.assign(assignment(3, 6, 8, &[3]));
    follower.asked.clear();
    follower.follow(FetchBody::Diverging { epoch: LeaderEpoch(5), end_offset: Offset(1) });
    assert!(matches!(follower.asked[..], [ReplicationEffect::Halt(_)]));
    assert_eq!(follower.replica.log().expect("open").log_end_offset(), Offset(2), "nothing was cut");
    let unclean = Assignment { unclean_epoch: LeaderEpoch(7), ..*assignment(3, 7, 9, &[3]) };
    follower.assign(Box::new(unclean));
    follower.asked.clear();
    follower.follow(FetchBody::Diverging { epoch: LeaderEpoch(5), end_offset: Offset(1) });
    assert_eq!(follower.next_fetch().fetch_offset, Offset(1));
}

#[test]
fn an_answer_to_an_older_question_changes_nothing_and_a_refusal_is_asked_again_later() {
    let mut follower = Fixture::new(Durability::PageCache);
    follower.assign(assignment(2, 5, 7, &[1, 2]));
    follower.asked.clear();
    let stale = |leader_epoch, incarnation, fetch_offset| FetchAnswer {
        leader_epoch: LeaderEpoch(leader_epoch),
        incarnation,
        fetch_offset: Offset(fetch_offset),
        body: records(&[(0, 4)], 0),
    };
    for answer in [stale(4, 1, 0), stale(5, 0, 0), stale(5, 1, 1)] {
        follower.replicate(ReplicationInput::Answered(answer));
    }
    assert!(follower.asked.is_empty());
    follower.follow(FetchBody::Error(ErrorCode::UnknownLeaderEpoch));
    assert!(follower.next_fetch().after_error);
    follower.follow(records(&[(3, 4)], 0));
    assert!(follower.next_fetch().after_error, "a gap is not appended");
    assert_eq!(follower.replica.log().expect("open").log_end_offset(), Offset(0));
}
