//! What replicas promise while nothing fails but links: who has to have a record, who is in sync, who follows whom.

use std::time::Duration;

use madang_actors::host::clock;
use madang_cluster::replica::{Durability, RequiredAcks};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::NodeId;

use crate::wire::CONTROLLER;
use crate::world::{LAG, World, answered, paused, until};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn an_append_is_acknowledged_once_every_follower_in_sync_has_it_on_its_device() {
    paused(async {
        let world = World::new(Durability::Fsync).await;
        world.hold_syncs(3, true);
        let mut answer = world.append(1, 1, RequiredAcks::All, LONG);
        until("node 3 has the record", || world.log_end(3) == 1).await;
        until("node 2 has told its durable end", || world.snapshot(2).confirmed_end.0 == 1).await;
        until("both have asked for the next", || {
            [2, 3].iter().all(|id| world.net.last_asked(*id).unwrap().position.fetch_offset.0 == 1)
        })
        .await;
        assert_eq!((answered(&mut answer), world.high_watermark(1)), (None, 0));
        world.hold_syncs(3, false);
        assert_eq!(answer.await.map(|appended| appended.base_offset.0), Ok(0));
        world.settle(1).await;
        world.end().await;
    });
}

#[test]
fn followers_learn_of_the_high_watermark_before_their_wait_is_over() {
    paused(async {
        for durability in [Durability::Fsync, Durability::PageCache] {
            let world = World::new(durability).await;
            until("all wait for news", || world.node(1).replica.waiters().len() == 2).await;
            let sent = clock::now();
            assert_eq!(world.produce(1, 1).await, Ok(0));
            until("they know", || world.high_watermark(2) == 1 && world.high_watermark(3) == 1).await;
            let took = clock::now().saturating_since(sent);
            assert!(took < Duration::from_millis(50), "{durability:?}: {took:?}");
            world.end().await;
        }
    });
}

#[test]
fn nothing_is_acknowledged_while_too_few_are_in_sync() {
    paused(async {
        let world = World::new(Durability::Fsync).await;
        assert_eq!(world.produce(1, 1).await, Ok(0));
        world.net.cut(1, &[2, 3]);
        let before = world.append(1, 2, RequiredAcks::All, LAG * 3);
        until("both are out", || world.net.in_sync() == [1]).await;
        assert_eq!(before.await.map_err(|refused| refused.error), Err(ErrorCode::NotEnoughReplicasAfterAppend));
        until("the leader knows", || world.snapshot(1).maximal_isr.len() == 1).await;
        assert_eq!(world.produce(1, 3).await, Err(ErrorCode::NotEnoughReplicas));
        assert_eq!((world.log_end(1), world.high_watermark(1)), (2, 1));
        world.net.heal();
        world.settle(1).await;
        assert_eq!(world.produce(1, 4).await, Ok(2));
        world.end().await;
    });
}

#[test]
fn a_follower_that_is_cut_off_leaves_the_in_sync_set_and_comes_back() {
    paused(async {
        let world = World::new(Durability::Fsync).await;
        world.net.cut(3, &[1]);
        let begun = clock::now();
        assert_eq!(world.produce(1, 1).await, Ok(0));
        assert!(clock::now().saturating_since(begun) >= LAG, "until then it may still be elected");
        assert_eq!(world.net.in_sync(), [1, 2]);
        assert_eq!(world.produce(1, 2).await, Ok(1));
        assert_eq!(world.log_end(3), 0);
        world.net.heal();
        world.settle(1).await;
        assert_eq!(world.produce(1, 3).await, Ok(2));
        world.settle(1).await;
        world.end().await;
    });
}

#[test]
fn a_leader_that_was_cut_off_drops_what_nobody_acknowledged_and_follows() {
    paused(async {
        let world = World::holding_one(Durability::Fsync).await;
        world.net.cut(1, &[2, 3, CONTROLLER]);
        let late = world.append(1, 2, RequiredAcks::All, LONG);
        assert!(world.append(1, 3, RequiredAcks::Leader, LONG).await.is_ok());
        world.net.fence(1, true);
        until("node 2 leads", || world.leads(2).is_some()).await;
        assert_eq!(world.produce(2, 4).await, Ok(1));
        assert_eq!((world.log_end(1), world.log_end(2)), (3, 2));
        world.net.heal();
        assert_eq!(late.await.map_err(|refused| refused.error), Err(ErrorCode::NotLeaderOrFollower));
        world.net.fence(1, false);
        world.settle(2).await;
        assert_eq!(world.wanted(2), [], "a leader wants nothing of the one that it followed");
        until("node 3 asks the new leader alone", || world.wanted(3) == [(NodeId(2), 1)]).await;
        world.end().await;
    });
}
