//! What becomes of replicas when actors die, answers are lost, and records are found missing.

use std::sync::Arc;
use std::time::Duration;

use madang_actors::host::clock;
use madang_cluster::replica::replication::{Confirmed, FetchAnswer, FetchBody, Loss};
use madang_cluster::replica::serving;
use madang_cluster::replica::{Durability, ReplicaMessage, RequiredAcks, SharedReplica};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{LeaderEpoch, NodeId, Offset};

use crate::wire::{CONTROLLER, Leader};
use crate::world::{World, answered, paused, until};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn what_an_older_life_of_a_follower_says_does_not_count_for_the_next() {
    paused(async {
        let world = World::new(Durability::Fsync).await;
        world.hold_syncs(2, true);
        let mut answer = world.append(1, 1, RequiredAcks::All, LONG);
        until("node 2 has the record", || world.log_end(2) == 1).await;
        until("node 3 has it on its device", || world.snapshot(3).confirmed_end.0 == 1).await;
        let old = world.snapshot(2).incarnation;
        world.plant_panic(2);
        // What it publishes next is that the log has grown.
        assert!(world.append(1, 2, RequiredAcks::Leader, LONG).await.is_ok());
        until("its next life asks", || world.net.last_asked(2).unwrap().position.incarnation > old).await;
        let late = Confirmed {
            node_id: NodeId(2),
            broker_epoch: world.net.broker_epoch(2),
            incarnation: old,
            leader_epoch: world.leads(1).unwrap(),
            confirmed_offset: Offset(1),
        };
        let leader = Leader { net: &world.net, node: 1 };
        serving::take_confirmed(&leader, vec![(world.net.partition(), late)]);
        until("the leader has heard it", || world.node(1).replica.actor().depth().items == 0).await;
        until("node 3 goes on", || world.snapshot(3).confirmed_end.0 == 2).await;
        assert_eq!((answered(&mut answer), world.high_watermark(1)), (None, 0));
        world.hold_syncs(2, false);
        assert!(answer.await.is_ok());
        world.settle(1).await;
        world.end().await;
    });
}

#[test]
fn a_leader_that_is_rebuilt_goes_on_in_its_epoch_without_waiting_for_its_followers_patience() {
    paused(async {
        let world = World::holding_one(Durability::Fsync).await;
        let (epoch, life) = (world.leads(1), world.snapshot(1).incarnation);
        world.plant_panic(1);
        let lost = world.append(1, 2, RequiredAcks::All, LONG).await;
        assert_eq!(lost.map_err(|refused| refused.error), Err(ErrorCode::NotLeaderOrFollower));
        until("its next life leads", || world.snapshot(1).incarnation > life).await;
        let begun = clock::now();
        world.settle(1).await;
        assert!(clock::now().saturating_since(begun) < Duration::from_millis(100));
        assert_eq!((world.leads(1), world.produce(1, 3).await), (epoch, Ok(2)), "what was left open was written");
        world.end().await;
    });
}

#[test]
fn a_life_learns_of_metadata_that_changed_while_it_began() {
    paused(async {
        let world = World::new(Durability::Fsync).await;
        let net = Arc::clone(&world.net);
        world.plant_restart(2, move || net.fence(1, true));
        assert!(world.append(1, 1, RequiredAcks::Leader, LONG).await.is_ok());
        until("node 2 leads", || world.leads(2).is_some()).await;
        assert_eq!(world.produce(2, 2).await, Ok(1));
        world.net.fence(1, false);
        world.settle(2).await;
        world.end().await;
    });
}

#[test]
fn a_lost_answer_is_fetched_again() {
    paused(async {
        let world = World::new(Durability::Fsync).await;
        world.net.lose_answers(2, 3);
        world.net.lose_answers(3, 1);
        assert_eq!(world.produce(1, 1).await, Ok(0));
        world.settle(1).await;
        world.end().await;
    });
}

#[test]
fn followers_go_on_when_their_fetcher_dies() {
    paused(async {
        let world = World::new(Durability::Fsync).await;
        assert_eq!(world.produce(1, 1).await, Ok(0));
        for node in [2, 3] {
            world.net.panics.lock().unwrap().insert(node);
        }
        assert_eq!(world.produce(1, 2).await, Ok(1));
        assert!(world.net.panics.lock().unwrap().is_empty(), "both died");
        world.settle(1).await;
        world.end().await;
    });
}

#[test]
fn nobody_waits_for_ever_on_a_link_that_is_cut() {
    paused(async {
        let world = World::new(Durability::Fsync).await;
        until("all wait for news", || world.node(1).replica.waiters().len() == 2).await;
        world.net.cut(1, &[2, 3, CONTROLLER]);
        let begun = clock::now();
        let refused = world.append(1, 1, RequiredAcks::All, LONG).await.map_err(|refused| refused.error);
        assert_eq!(refused, Err(ErrorCode::RequestTimedOut));
        assert_eq!(clock::now().saturating_since(begun).as_secs(), LONG.as_secs());
        assert!(world.node(1).replica.waiters().is_empty(), "parked fetches ended by themselves");
        assert_eq!(world.net.in_sync(), [1, 2, 3], "no proposal comes through");
        assert!(!world.wanted(2).is_empty() && !world.wanted(3).is_empty(), "they ask on");
        world.net.heal();
        world.settle(1).await;
        world.end().await;
    });
}

#[test]
fn a_proposal_that_is_lost_is_made_again() {
    paused(async {
        let world = World::new(Durability::Fsync).await;
        world.net.cut(1, &[3, CONTROLLER]);
        let answer = world.append(1, 1, RequiredAcks::All, LONG);
        until("the leader has tried again", || world.net.proposals() >= 2).await;
        assert_eq!(world.net.in_sync(), [1, 2, 3]);
        world.net.mend(1, &[CONTROLLER]);
        assert!(answer.await.is_ok());
        assert_eq!(world.net.in_sync(), [1, 2]);
        world.net.heal();
        world.settle(1).await;
        world.end().await;
    });
}

#[test]
fn a_replica_that_finds_less_than_it_has_published_is_counted_on_no_more_until_it_has_caught_up() {
    paused(async {
        let world = World::holding_one(Durability::PageCache).await;
        let epoch = world.leads(1).unwrap();
        world.net.cut(2, &[CONTROLLER]);
        world.plant_loss(2);
        assert!(world.append(1, 2, RequiredAcks::Leader, LONG).await.is_ok());
        until("it says so again and again", || world.net.reports() >= 2).await;
        assert_eq!(world.snapshot(2).loss.map(|loss| (loss.published, loss.found)), Some((Offset(1), Offset(0))));
        assert_eq!(world.wanted(2), [], "it follows nobody before the controller knows");
        world.net.heal();
        until("the controller knows", || !world.net.state().losses.is_empty()).await;
        assert!(world.net.state().leader_epoch > epoch, "nothing that its last life said counts");
        world.settle(1).await;
        assert_eq!(world.produce(1, 3).await, Ok(2));
        world.end().await;
    });
}

#[test]
fn a_replica_that_an_earlier_life_has_set_aside_stays_so_and_goes_on_saying_it() {
    paused(async {
        let loss = Loss { incarnation: 1, published: Offset(9), found: Offset(7) };
        let set_aside = |id, replica: &SharedReplica| {
            if id == 3 {
                replica.note_set_aside(loss);
                replica.set_offline();
            }
        };
        let world = World::prepared(Durability::Fsync, set_aside).await;
        until("the controller knows", || !world.net.state().losses.is_empty()).await;
        assert_eq!((world.net.in_sync(), world.net.reports()), (vec![1, 2], 1));
        assert_eq!((world.produce(1, 1).await, world.wanted(3)), (Ok(0), vec![]));
        assert!(world.node(3).replica.shared().last_published().is_none(), "it tells nobody anything");
        world.end().await;
    });
}

#[test]
fn a_replica_that_is_set_aside_says_so_until_the_controller_knows() {
    paused(async {
        let world = World::holding_one(Durability::Fsync).await;
        world.net.cut(3, &[1, CONTROLLER]);
        let (epoch, offset) = (world.leads(1).unwrap(), Offset(1));
        // A leader that has lost what it had acknowledged.
        let body = FetchBody::Diverging { epoch: LeaderEpoch::NONE, end_offset: Offset::ZERO };
        let incarnation = world.snapshot(3).incarnation;
        let answer = FetchAnswer { leader_epoch: epoch, incarnation, fetch_offset: offset, body };
        world.send(3, ReplicaMessage::Answered { answer });
        until("it is set aside", || world.node(3).replica.shared().is_offline()).await;
        assert_eq!(world.wanted(3), [], "it wants nothing more");
        until("it says so again and again", || world.net.reports() >= 3).await;
        assert!(world.net.state().losses.is_empty());
        world.net.heal();
        until("the controller knows", || !world.net.state().losses.is_empty()).await;
        assert_eq!(world.net.in_sync(), [1, 2]);
        let said = world.net.reports();
        assert_eq!(world.produce(1, 2).await, Ok(1));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(world.produce(1, 3).await, Ok(2));
        assert_eq!(world.net.reports(), said, "it has been heard");
        world.end().await;
    });
}
