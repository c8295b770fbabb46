//! What the first controller of a cluster says, and what holds where nothing is set.

use super::*;
use crate::configs::{CLUSTER_KEYS, TopicConfig};
use crate::controller::founding::found;

const MINIMUM: &str = "min.insync.replicas";

fn file(pairs: &[(&str, &str)]) -> ControllerConfig {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    ControllerConfig { broker: BrokerConfig::parse(pairs).expect("a valid configuration").0, ..config() }
}

fn started(disk: Arc<FaultDisk>, pairs: &[(&str, &str)]) -> World {
    let mut world = World::open_with(disk, 7, file(pairs));
    while world.sync_one() {}
    world
}

#[test]
fn a_lone_controllers_file_counts_at_each_of_its_starts() {
    let disk = Arc::new(FaultDisk::new());
    let world = started(Arc::clone(&disk), &[(MINIMUM, "2")]);
    assert_eq!(world.controller.image().default_of(MINIMUM), Some(Some("2")));
    assert_eq!(world.controller.image().default_of("madang.durability"), Some(None), "not set there");
    let version = world.controller.image().version();
    let world = started(Arc::clone(&disk), &[(MINIMUM, "2")]);
    assert_eq!(world.controller.image().version(), version + 1, "its election's empty entry and nothing more");
    let world = started(disk, &[("madang.durability", "page-cache")]);
    let image = world.controller.image();
    assert_eq!(
        (image.default_of(MINIMUM), image.default_of("madang.durability")),
        (Some(None), Some(Some("page-cache")))
    );
    assert_eq!(rebuilt(image).default_of("madang.durability"), Some(Some("page-cache")));
}

#[test]
fn among_several_controllers_the_first_ones_file_counts() {
    let (first, second) = (file(&[(MINIMUM, "2")]).broker, file(&[(MINIMUM, "1")]).broker);
    let (records, image) = found(&MetadataImage::default(), &first, false, Uuid([3; 16]), &mut Prng::new(1));
    assert_eq!(records.len(), 1 + CLUSTER_KEYS.len());
    assert!(
        found(&image, &second, false, Uuid([3; 16]), &mut Prng::new(1)).0.is_empty(),
        "an election is no decision of anybody"
    );
    for broker in [&first, &second] {
        assert_eq!(TopicConfig::resolve(&image, broker, broker.node_id, "t").min_insync_replicas, 2);
    }
    assert_eq!(
        found(&image, &second, true, Uuid([3; 16]), &mut Prng::new(1)).0.len(),
        1,
        "a lone one has nobody to differ from"
    );
}

#[test]
fn what_every_node_goes_by_is_not_set_for_one_of_them() {
    let mut world = World::new();
    let refused = world.alter(4, "1", MINIMUM, AlterOp::Set, Some("2")).expect_err("refused");
    assert_eq!(refused.error, ErrorCode::InvalidConfig);
    assert_eq!(
        refused.message.as_deref(),
        Some("Broker-level min.insync.replicas cannot be altered while ELR is enabled.")
    );
    world.alter(4, "", MINIMUM, AlterOp::Set, Some("2")).expect("for all of them");
}
