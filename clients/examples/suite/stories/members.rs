//! What becomes of one member.

use std::time::{Duration, Instant};

use madang_client::{
    Admin, Assignor, CommittedOffset, CommittedOffsets, GroupConfig, GroupConsumer, GroupError, Offset,
};

use super::groups::{Told, config};
use super::{PATIENCE, client, fill, fresh, topic};

const STEP: Duration = Duration::from_millis(100);

async fn read(member: &mut GroupConsumer, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < count {
        assert!(Instant::now() < deadline, "{seen} of {count} records came");
        seen += member.poll(STEP).await.expect("polled").len();
    }
}

pub(super) async fn fenced(address: String) {
    let client = client(&address);
    let (topic, group) = (topic(&client, "static", 2).await, fresh("group"));
    fill(&client, &topic, 2, 0..4).await;
    let instance =
        || GroupConfig { group_instance_id: Some("one".into()), ..config(&group, &[Assignor::CooperativeSticky]) };
    let told = Told::default();
    let mut first = GroupConsumer::new(client.clone(), instance(), [topic.as_str()]).with_listener(told.clone());
    read(&mut first, 4).await;
    first.commit().await.expect("committed");
    let mut second = GroupConsumer::new(client.clone(), instance(), [topic.as_str()]);
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        assert!(Instant::now() < deadline, "the first is not fenced");
        second.poll(STEP).await.expect("polled");
        if let Err(error) = first.poll(STEP).await {
            break error;
        }
    };
    assert!(matches!(&error, GroupError::Fenced { group_instance_id, .. } if group_instance_id == "one"), "{error}");
    assert!(!error.is_retriable() && told.has() == 0);
    assert!(matches!(first.poll(STEP).await, Err(GroupError::Fenced { .. })), "and stays so");
    fill(&client, &topic, 2, 4..8).await;
    read(&mut second, 4).await;
}

pub(super) async fn max_poll(address: String) {
    let client = client(&address);
    let (topic, group) = (topic(&client, "slow", 2).await, fresh("group"));
    fill(&client, &topic, 2, 0..4).await;
    let told = Told::default();
    let slow = GroupConfig { max_poll_interval: Duration::from_secs(1), ..config(&group, &[Assignor::Range]) };
    let mut slow = GroupConsumer::new(client.clone(), slow, [topic.as_str()]).with_listener(told.clone());
    read(&mut slow, 4).await;
    let admin = Admin::new(client.clone());
    let deadline = Instant::now() + PATIENCE;
    // Sooner than its session runs out.
    while !admin.describe_group(&group).await.expect("described").members.is_empty() {
        assert!(Instant::now() < deadline, "who does not poll is still a member");
        tokio::time::sleep(STEP).await;
    }
    assert_eq!(told.has(), 2, "nobody is told outside of poll");
    let late = slow.commit().await.expect_err("no longer a member");
    assert!(late.is_retriable(), "{late}");
    read(&mut slow, 4).await;
    assert_eq!((*told.lost.lock().expect("sound"), told.has()), (2, 2), "it has lost all, and joined again");
    slow.leave().await.expect("left");
}

pub(super) async fn commits(address: String) {
    let client = client(&address);
    let (topic, group) = (topic(&client, "commits", 1).await, fresh("group"));
    fill(&client, &topic, 1, 0..10).await;
    let admin = Admin::new(client.clone());
    let at = |offset, metadata: &str| {
        let committed = CommittedOffset { offset: Offset(offset), metadata: metadata.to_owned() };
        CommittedOffsets::from([((topic.clone(), 0), committed)])
    };
    let automatic = GroupConfig { auto_commit: Some(STEP), ..config(&group, &[Assignor::Range]) };
    let mut member = GroupConsumer::new(client.clone(), automatic, [topic.as_str()]);
    read(&mut member, 10).await;
    let deadline = Instant::now() + PATIENCE;
    while admin.committed_offsets(&group).await.expect("offsets") != at(10, "") {
        assert!(Instant::now() < deadline, "nothing is committed by itself");
        member.poll(STEP).await.expect("polled");
    }
    fill(&client, &topic, 1, 10..15).await;
    read(&mut member, 5).await;
    member.leave().await.expect("left");
    assert_eq!(admin.committed_offsets(&group).await.expect("offsets"), at(15, ""), "who leaves commits");

    let mut member = GroupConsumer::new(client.clone(), config(&group, &[Assignor::Range]), [topic.as_str()]);
    fill(&client, &topic, 1, 15..20).await;
    read(&mut member, 5).await;
    member.commit_offsets(at(17, "checkpoint")).await.expect("committed");
    assert_eq!(member.committed().await.expect("offsets"), at(17, "checkpoint"));
    let (one, two) = (member.start_commit().await, member.start_commit().await);
    two.await.expect("committed");
    one.await.expect("committed");
    assert_eq!(member.committed().await.expect("offsets"), at(20, ""));
    member.leave().await.expect("left");
}
