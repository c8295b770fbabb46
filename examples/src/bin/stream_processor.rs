//! Clicks go through a filter, are joined with what is known of their users, and are counted for each country and each five minutes.
//!
//! ```text
//! cargo run -p madang-examples --bin stream_processor -- [TOPIC]
//! ```
//! Look at: TOPIC-users is a table (compacted, the newest record of a user counts), TOPIC-clicks a stream, TOPIC-counts the result, written for whoever comes
//! next. A window belongs to the times that clicks carry; a click that comes long after its window is over is too late.

use std::collections::BTreeMap;

use madang_client::{Client, Consumer, ConsumerConfig, Producer, ProducerConfig, ProducerRecord, StartAt};
use madang_examples::{
    COMPACTED, Failure, KEPT_FOR_EVER, MIDNIGHT, MINUTE, argument, client, clock, new_topic, read_to_end, text,
    write_all,
};

/// How long a window is, and how long after its end clicks of it still count.
const WINDOW: i64 = 5 * MINUTE;
const GRACE: i64 = 10 * MINUTE;

/// User and country; ann moves.
const USERS: &[(&str, &str)] = &[("ann", "FR"), ("bob", "PG"), ("cat", "PG"), ("ann", "DE")];

/// User, minutes after midnight, and what the browser says of itself.
const CLICKS: &[(&str, i64, &str)] = &[
    ("ann", 600, "firefox"),
    ("bob", 601, "firefox"),
    ("cat", 604, "safari"),
    ("bob", 602, "crawler bot"),
    ("ann", 606, "firefox"),
    ("eve", 606, "firefox"),
    ("cat", 609, "safari"),
    // Two that are late: the first comes while its window still waits, the second does not.
    ("bob", 612, "firefox"),
    ("bob", 604, "firefox"),
    ("ann", 641, "firefox"),
    ("ann", 601, "firefox"),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let name = argument(1, "stream");
    let (users, clicks, counts) = (format!("{name}-users"), format!("{name}-clicks"), format!("{name}-counts"));
    let client = client();
    new_topic(&client, &users, 3, &[COMPACTED]).await?;
    new_topic(&client, &clicks, 3, &[KEPT_FOR_EVER]).await?;
    new_topic(&client, &counts, 3, &[KEPT_FOR_EVER]).await?;
    let producer = Producer::new(client.clone(), ProducerConfig::default());
    let table = USERS.iter().map(|(user, country)| ProducerRecord::new(users.as_str()).key(*user).value(*country));
    write_all(&producer, table).await?;
    let stream = CLICKS.iter().map(|(user, minute, agent)| {
        ProducerRecord::new(clicks.as_str()).key(*user).value(*agent).timestamp(MIDNIGHT + minute * MINUTE)
    });
    println!("{} clicks", write_all(&producer, stream).await?);

    let windows = process(&client, &users, &clicks).await?;
    let results = windows.iter().map(|((begins, country), count)| {
        println!("{} {country} {count}", clock(*begins));
        ProducerRecord::new(counts.as_str()).key(country.clone()).value(count.to_string()).timestamp(*begins)
    });
    let written = write_all(&producer, results).await?;
    println!("{written} windows written to {counts}");
    Ok(())
}

/// Clicks by window and country.
async fn process(client: &Client, users: &str, clicks: &str) -> Result<BTreeMap<(i64, String), u32>, Failure> {
    let mut consumer = Consumer::new(client.clone(), ConsumerConfig::default());
    // The table first, so that no click meets half of it.
    consumer.assign(users, StartAt::Earliest).await?;
    let mut countries = BTreeMap::new();
    for record in read_to_end(&mut consumer).await? {
        countries.insert(text(record.key.as_deref()), text(record.value.as_deref()));
    }
    consumer.unassign_all();
    consumer.assign(clicks, StartAt::Earliest).await?;

    let (mut windows, mut bots, mut strangers, mut late) = (BTreeMap::new(), 0, 0, 0);
    // How far time has come, for each partition: partitions are read in any order, but each is in order in itself.
    let mut newest: BTreeMap<i32, i64> = BTreeMap::new();
    for click in read_to_end(&mut consumer).await? {
        if text(click.value.as_deref()).ends_with("bot") {
            bots += 1;
            continue;
        }
        let Some(country) = countries.get(&text(click.key.as_deref())) else {
            strangers += 1;
            continue;
        };
        let now = newest.entry(click.partition).or_insert(click.timestamp);
        *now = click.timestamp.max(*now);
        let begins = click.timestamp - click.timestamp.rem_euclid(WINDOW);
        if begins + WINDOW + GRACE <= *now {
            late += 1;
            continue;
        }
        *windows.entry((begins, country.clone())).or_default() += 1;
    }
    println!("{bots} of bots, {strangers} of strangers, {late} too late");
    Ok(windows)
}
