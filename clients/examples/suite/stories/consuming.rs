//! Reading without a group, and what administration does to what is read.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use madang_client::{
    Admin, CommittedOffset, CommittedOffsets, ConfigResource, ConsumeError, Consumer, ConsumerConfig, IsolationLevel,
    Offset, StartAt,
};

use super::{PATIENCE, client, fill, fresh, numbers, topic};

const SOON: Duration = Duration::from_millis(300);

async fn take(consumer: &mut Consumer, count: usize) -> Vec<i32> {
    let mut all = Vec::new();
    while all.len() < count {
        let records = consumer.poll(PATIENCE).await.expect("records");
        assert!(!records.is_empty(), "{} of {count} came", all.len());
        all.extend(numbers(&records));
    }
    all.sort_unstable();
    all
}

pub(super) async fn seek_and_pause(address: String) {
    let client = client(&address);
    let topic = topic(&client, "seek", 2).await;
    fill(&client, &topic, 2, 0..20).await;
    let config = ConsumerConfig { isolation: IsolationLevel::ReadCommitted, ..ConsumerConfig::default() };
    let mut consumer = Consumer::new(client.clone(), config);
    assert_eq!(consumer.offsets(StartAt::Latest).await.expect("nothing is read yet"), BTreeMap::new());
    consumer.assign(&topic, StartAt::Earliest).await.expect("assigned");
    for (at, zero, one) in [
        (StartAt::Earliest, 0, 0),
        (StartAt::Timestamp(1_000_015), 8, 7),
        (StartAt::Timestamp(2_000_000), 10, 10),
        (StartAt::Latest, 10, 10),
    ] {
        let expected = BTreeMap::from([((topic.clone(), 0), Offset(zero)), ((topic.clone(), 1), Offset(one))]);
        assert_eq!(consumer.offsets(at).await.expect("found"), expected, "{at:?}");
    }
    assert_eq!(take(&mut consumer, 20).await, (0..20).collect::<Vec<_>>());

    consumer.seek(&topic, 0, StartAt::Offset(Offset(8))).await.expect("sought");
    assert_eq!(take(&mut consumer, 2).await, [16, 18]);
    let at = consumer.seek(&topic, 1, StartAt::Timestamp(1_000_015)).await.expect("sought");
    assert_eq!((at, take(&mut consumer, 3).await), (Offset(7), vec![15, 17, 19]));
    assert_eq!(consumer.seek(&topic, 1, StartAt::Timestamp(2_000_000)).await.expect("sought"), Offset(10));
    assert_eq!(consumer.seek(&topic, 1, StartAt::MaxTimestamp).await.expect("sought"), Offset(9));
    assert_eq!(take(&mut consumer, 1).await, [19]);
    let elsewhere = consumer.seek(&topic, 7, StartAt::Earliest).await;
    assert!(matches!(elsewhere, Err(ConsumeError::NotAssigned { partition: 7, .. })));

    consumer.pause(&topic, 0).expect("paused");
    fill(&client, &topic, 2, 20..24).await;
    assert_eq!(take(&mut consumer, 2).await, [21, 23]);
    assert_eq!(consumer.poll(SOON).await.expect("polled").len(), 0, "the other partition is paused");
    consumer.resume(&topic, 0).expect("resumed");
    assert_eq!(take(&mut consumer, 2).await, [20, 22]);
    assert_eq!(consumer.poll(Duration::ZERO).await.expect("polled").len(), 0);
}

pub(super) async fn offsets_by_name(address: String) {
    let client = client(&address);
    let (topic, group) = (topic(&client, "named", 1).await, fresh("group"));
    fill(&client, &topic, 1, 0..10).await;
    let config = ConsumerConfig { max_poll_records: 4, ..ConsumerConfig::default() };
    let mut first = Consumer::new(client.clone(), config);
    first.assign_committed(&group, &topic, &[0], StartAt::Earliest).await.expect("assigned");
    assert_eq!(take(&mut first, 4).await, [0, 1, 2, 3]);
    first.commit_as(&group, "by hand").await.expect("committed");
    let committed = Admin::new(client.clone()).committed_offsets(&group).await.expect("offsets");
    let expected = CommittedOffset { offset: Offset(4), metadata: "by hand".into() };
    assert_eq!(committed, CommittedOffsets::from([((topic.clone(), 0), expected)]));
    let mut second = Consumer::new(client, ConsumerConfig::default());
    second.assign_committed(&group, &topic, &[0], StartAt::Earliest).await.expect("assigned");
    assert_eq!(take(&mut second, 6).await, [4, 5, 6, 7, 8, 9]);
}

pub(super) async fn stream(address: String) {
    let client = client(&address);
    let topic = topic(&client, "stream", 2).await;
    fill(&client, &topic, 2, 0..20).await;
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(&topic, StartAt::Earliest).await.expect("assigned");
    let mut taken = Vec::new();
    {
        let records = consumer.stream();
        pin_mut!(records);
        while taken.len() < 7 {
            let record = records.next().await.expect("no end").expect("a record");
            taken.push(super::number(&record));
        }
    }
    taken.extend(take(&mut consumer, 13).await);
    taken.sort_unstable();
    assert_eq!(taken, (0..20).collect::<Vec<_>>(), "nothing is lost, nothing comes twice");
}

pub(super) async fn administration(address: String) {
    let client = client(&address);
    let admin = Admin::new(client.clone());
    let (topic, group) = (topic(&client, "admin", 1).await, fresh("group"));
    fill(&client, &topic, 1, 0..10).await;
    let low = admin.delete_records(&topic, &[(0, Offset(4))]).await.expect("deleted");
    assert_eq!(low, BTreeMap::from([(0, Offset(4))]));
    let asked = BTreeMap::from([(topic.clone(), vec![0])]);
    let earliest = admin.offsets(&asked, StartAt::Earliest).await.expect("offsets");
    assert_eq!(earliest[&(topic.clone(), 0)].offset, Offset(4));
    let latest = admin.offsets(&asked, StartAt::MaxTimestamp).await.expect("offsets");
    assert_eq!((latest[&(topic.clone(), 0)].offset, latest[&(topic.clone(), 0)].timestamp), (Offset(9), 1_000_009));

    let at = CommittedOffset { offset: Offset(5), metadata: "m".into() };
    let offsets = CommittedOffsets::from([((topic.clone(), 0), at)]);
    admin.alter_offsets(&group, &offsets).await.expect("altered");
    assert_eq!(admin.committed_offsets(&group).await.expect("offsets"), offsets);
    admin.delete_offsets(&group, &[(topic.clone(), 0)]).await.expect("deleted");
    assert_eq!(admin.committed_offsets(&group).await.expect("offsets"), CommittedOffsets::new());

    let cluster = admin.describe_cluster().await.expect("described");
    let broker = cluster.brokers[0].node_id;
    let dirs = admin.log_dirs(broker, None).await.expect("directories");
    let has_topic = dirs.iter().flat_map(|dir| &dir.replicas).any(|replica| replica.topic == topic);
    assert!(has_topic && dirs.iter().all(|dir| dir.error.is_none()), "{dirs:?}");
    let quorum = admin.describe_quorum().await.expect("the quorum");
    assert!(quorum.voters.iter().any(|voter| voter.node_id == quorum.leader), "{quorum:?}");
    let configs = admin.configs(&ConfigResource::Broker(broker)).await.expect("configs");
    assert!(configs.iter().any(|entry| entry.name == "num.partitions"));
}
