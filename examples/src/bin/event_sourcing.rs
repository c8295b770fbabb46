//! Accounts whose state is what their events add up to, and a compacted topic that keeps the newest state of each, so that a restart reads little.
//!
//! ```text
//! cargo run -p madang-examples --bin event_sourcing -- [TOPIC]
//! ```
//! Look at: the second life knows nothing but what is in the two topics, and goes on where the first one ended. TOPIC has the events, all of them for ever;
//! TOPIC-state has a record for each change, of which the broker keeps at least the newest of each account.

use std::collections::BTreeMap;

use madang_client::{Client, Consumer, ConsumerConfig, Offset, Producer, ProducerConfig, ProducerRecord, StartAt};
use madang_examples::{COMPACTED, Failure, KEPT_FOR_EVER, argument, client, new_topic, read_to_end, text, write_all};
use serde::{Deserialize, Serialize};

/// Both topics: an account has the same partition number in each.
const PARTITIONS: i32 = 3;

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Event {
    Paid(i64),
    Drawn(i64),
    Closed,
}

/// An account's state, and the offset of the event that made it what it is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    cents: i64,
    event: i64,
}

type Accounts = BTreeMap<String, Account>;

/// The account after an event; none when it is closed.
fn apply(account: Option<&Account>, event: Event, offset: Offset) -> Option<Account> {
    let cents = account.map_or(0, |account| account.cents);
    match event {
        Event::Paid(more) => Some(Account { cents: cents + more, event: offset.0 }),
        Event::Drawn(less) => Some(Account { cents: cents - less, event: offset.0 }),
        Event::Closed => None,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let events = argument(1, "accounts");
    let states = format!("{events}-state");
    let client = client();
    new_topic(&client, &events, PARTITIONS, &[KEPT_FOR_EVER]).await?;
    new_topic(&client, &states, PARTITIONS, &[COMPACTED]).await?;

    let happened = |list: &[(&'static str, Event)]| -> Result<Vec<_>, serde_json::Error> {
        let record = |(account, event): &(&'static str, Event)| {
            Ok(ProducerRecord::new(events.as_str()).key(*account).value(serde_json::to_vec(event)?))
        };
        list.iter().map(record).collect()
    };
    let producer = Producer::new(client.clone(), ProducerConfig::default());
    let morning =
        [("ann", Event::Paid(100)), ("bob", Event::Paid(70)), ("ann", Event::Drawn(30)), ("cat", Event::Paid(5))];
    write_all(&producer, happened(&morning)?).await?;
    live(&client, &producer, &events, &states, "first life").await?;

    let afternoon =
        [("bob", Event::Drawn(20)), ("cat", Event::Closed), ("dan", Event::Paid(40)), ("ann", Event::Paid(1))];
    write_all(&producer, happened(&afternoon)?).await?;
    let accounts = live(&client, &producer, &events, &states, "second life").await?;

    // What the events say from the first one on is the truth; the state is only quicker to read.
    let mut consumer = Consumer::new(client.clone(), ConsumerConfig::default());
    consumer.assign(&events, StartAt::Earliest).await?;
    let mut truth = Accounts::new();
    for record in read_to_end(&mut consumer).await? {
        let event = serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
        keep(&mut truth, text(record.key.as_deref()), |account| apply(account, event, record.offset));
    }
    println!("all events from the first on: {}", if truth == accounts { "the same" } else { "something else" });
    Ok(())
}

/// A process from its start to its end: it builds its state anew, handles what has happened since, and leaves the new state behind.
async fn live(
    client: &Client,
    producer: &Producer,
    events: &str,
    states: &str,
    name: &str,
) -> Result<Accounts, Failure> {
    let mut consumer = Consumer::new(client.clone(), ConsumerConfig::default());
    consumer.assign(states, StartAt::Earliest).await?;
    let (mut accounts, mut next) = (Accounts::new(), BTreeMap::from_iter((0..PARTITIONS).map(|at| (at, 0))));
    for record in read_to_end(&mut consumer).await? {
        let state: Option<Account> = record.value.as_deref().map(serde_json::from_slice).transpose()?;
        if let Some(state) = state {
            // States are written in the order of the events, so those before this one's are done.
            next.insert(record.partition, state.event + 1);
        }
        keep(&mut accounts, text(record.key.as_deref()), |_| state);
    }
    println!("{name}: {} accounts known", accounts.len());

    consumer.unassign_all();
    for (partition, offset) in next {
        consumer.assign_partition(&events.into(), partition, Offset(offset));
    }
    let mut changes = Vec::new();
    let news = read_to_end(&mut consumer).await?;
    for record in &news {
        let (key, event) =
            (text(record.key.as_deref()), serde_json::from_slice(record.value.as_deref().unwrap_or_default())?);
        keep(&mut accounts, key.clone(), |account| apply(account, event, record.offset));
        let change = ProducerRecord::new(states).key(key.clone()).partition(record.partition);
        changes.push(match accounts.get(&key) {
            Some(account) => change.value(serde_json::to_vec(account)?),
            // A record without a value, a tombstone, says that there is nothing of this key any more.
            None => change,
        });
    }
    write_all(producer, changes).await?;
    println!("{name}: {} events handled", news.len());
    for (account, state) in &accounts {
        println!("{name}: {account} has {}", state.cents);
    }
    Ok(accounts)
}

/// Changes, adds or removes one account.
fn keep(accounts: &mut Accounts, key: String, change: impl FnOnce(Option<&Account>) -> Option<Account>) {
    match change(accounts.get(&key)) {
        Some(account) => drop(accounts.insert(key, account)),
        None => drop(accounts.remove(&key)),
    }
}
