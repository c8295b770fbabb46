//! The controller over a disk that fails, and what clients are told: what the tests of each responsibility are built on.

use std::collections::BTreeMap;
use std::path::Path;

use madang_storage::{Crash, FaultDisk};

mod configs;
mod dead;
mod founding;
mod growing;
mod log;
mod several;
mod topics;

use super::*;
use crate::metadata::{ConfigResource, Endpoint, SecurityProtocol};

const NODE: NodeId = NodeId(1);

pub(super) struct World {
    pub(super) disk: Arc<FaultDisk>,
    controller: Controller,
    rng: Prng,
    syncs: VecDeque<(SyncTicket, Arc<dyn DiskFile>)>,
    replies: BTreeMap<RequestId, ApiResult<Outcome>>,
    next_request: u64,
}

fn config() -> ControllerConfig {
    let broker = BrokerConfig::default();
    ControllerConfig { node_id: NODE, voters: vec![NODE], cluster_id: None, broker, directory: "/metadata".into() }
}

impl World {
    fn open(disk: Arc<FaultDisk>, seed: u64) -> Self {
        Self::open_with(disk, seed, config())
    }

    fn open_with(disk: Arc<FaultDisk>, seed: u64, config: ControllerConfig) -> Self {
        let controller = Controller::open(config, Arc::clone(&disk) as Arc<dyn Disk>).expect("an intact log");
        let (syncs, replies) = (VecDeque::new(), BTreeMap::new());
        let mut world = Self { disk, controller, rng: Prng::new(seed), syncs, replies, next_request: 0 };
        world.step(ControllerInput::Start);
        world
    }

    pub(super) fn new() -> Self {
        let mut world = Self::open(Arc::new(FaultDisk::new()), 7);
        world.register();
        world
    }

    fn step(&mut self, input: ControllerInput) {
        let mut effects = Vec::new();
        self.controller.step(Mono::ZERO, Wall(0), input, &mut self.rng, &mut effects);
        self.controller.check();
        for effect in effects {
            match effect {
                ControllerEffect::Sync { ticket, file } => self.syncs.push_back((ticket, file)),
                ControllerEffect::Reply { request, result } => {
                    assert!(self.replies.insert(request, result).is_none(), "one answer each");
                }
                ControllerEffect::Publish { image, .. } => image.check(),
                ControllerEffect::Send { .. } => panic!("a lone voter talks to nobody"),
                ControllerEffect::Voters(voters) => assert_eq!(voters, [NODE], "there is nobody else"),
                ControllerEffect::Leader(leader) => assert_eq!(leader, Some(NODE), "there is nobody else"),
                ControllerEffect::Fatal(why) => panic!("{why}"),
            }
        }
    }

    fn ask(&mut self, proposal: Proposal) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.step(ControllerInput::Propose { request, proposal });
        request
    }

    fn sync_one(&mut self) -> bool {
        let Some((ticket, file)) = self.syncs.pop_front() else { return false };
        let result = file.sync().map_err(|error| error.to_string());
        self.step(ControllerInput::Synced { ticket, result });
        true
    }

    fn call(&mut self, proposal: Proposal) -> ApiResult<Outcome> {
        let request = self.ask(proposal);
        while self.sync_one() {}
        self.replies.remove(&request).expect("answered once everything is synced")
    }

    fn register(&mut self) -> i64 {
        let endpoint = Endpoint {
            listener: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9092,
            security_protocol: SecurityProtocol::Plaintext,
        };
        let broker = RegisterBroker {
            node_id: NODE,
            incarnation_id: process(self.controller.image()),
            endpoints: vec![endpoint],
            rack: None,
            log_dirs: vec![Uuid([2; 16])],
            starts: Vec::new(),
        };
        match self.call(Proposal::RegisterBroker(broker)) {
            Ok(Outcome::Registered(broker_epoch)) => {
                let serves = Proposal::UnfenceBroker { node_id: NODE, broker_epoch };
                assert_eq!(self.call(serves), Ok(Outcome::Fenced(false)));
                broker_epoch
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn create(&mut self, topic: NewTopic) -> ApiResult<CreatedTopic> {
        match self.call(Proposal::CreateTopics { topics: vec![topic], validate_only: false }) {
            Ok(Outcome::CreateTopics(mut results)) => results.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn alter(&mut self, resource_type: i8, name: &str, key: &str, op: AlterOp, value: Option<&str>) -> ApiResult<()> {
        let alterations = vec![ConfigAlteration { key: key.into(), op, value: value.map(Into::into) }];
        let resources = vec![ResourceAlteration { resource_type, name: name.into(), alterations }];
        match self.call(Proposal::IncrementalAlterConfigs { resources, validate_only: false }) {
            Ok(Outcome::AlterConfigs(mut results)) => results.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// Ends the process and starts the next one on what is left.
    fn reopen(self, crash: Crash) -> Self {
        let Self { disk, controller, mut rng, syncs, .. } = self;
        drop((controller, syncs));
        disk.crash(crash, &mut rng);
        let mut world = Self::open(disk, rng.next_u64());
        while world.sync_one() {}
        world
    }
}

/// Names a process that has not registered before.
pub(super) fn process(image: &MetadataImage) -> Uuid {
    Uuid::from_random(image.next_broker_epoch.unsigned_abs(), 9)
}

pub(super) fn topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor: -1, ..NewTopic::default() }
}

/// The image as it comes out of a snapshot of it.
fn rebuilt(image: &MetadataImage) -> MetadataImage {
    let mut bytes = Vec::new();
    encode_records(&dump(image), &mut bytes).unwrap();
    let meta = SnapshotMeta { index: image.version(), term: 1, members: Membership::default() };
    let mut copy = MetadataImage::default();
    load_snapshot(&mut copy, &StoredSnapshot { meta, records: bytes }).unwrap();
    copy
}
