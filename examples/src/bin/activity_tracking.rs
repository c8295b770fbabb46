//! Page views of users, and from them each user's visits: a visit is over when the user does nothing for half an hour.
//!
//! ```text
//! cargo run -p madang-examples --bin activity_tracking -- [TOPIC]
//! ```
//! Look at: what counts is the time that a view carries, not when it is read. So the answer is the same for views of now and for those of a whole year, read
//! in seconds.

use std::collections::BTreeMap;

use madang_client::{Consumer, ConsumerConfig, Producer, ProducerConfig, ProducerRecord, StartAt};
use madang_examples::{
    Failure, KEPT_FOR_EVER, MIDNIGHT, MINUTE, argument, client, clock, new_topic, read_to_end, text, write_all,
};

/// A user who does nothing for longer has gone.
const GAP: i64 = 30 * MINUTE;

/// Who looked at what, in minutes after midnight.
const VIEWS: &[(&str, i64, &str)] = &[
    ("ann", 540, "/"),
    ("ann", 542, "/lamps"),
    ("bob", 543, "/"),
    ("ann", 550, "/cart"),
    ("bob", 573, "/desks"),
    ("cat", 580, "/"),
    ("ann", 600, "/"),
    ("bob", 604, "/desks/7"),
    ("ann", 601, "/orders"),
    ("cat", 611, "/lamps"),
];

/// One visit: when it began and ended, and what was seen.
struct Visit {
    begins: i64,
    ends: i64,
    pages: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let topic = argument(1, "activity");
    let client = client();
    new_topic(&client, &topic, 3, &[KEPT_FOR_EVER]).await?;

    // With the user as the key, one user's views are in one partition, in the order in which they happened.
    let producer = Producer::new(client.clone(), ProducerConfig::default());
    let views = VIEWS.iter().map(|(user, minute, page)| {
        ProducerRecord::new(topic.as_str()).key(*user).value(*page).timestamp(MIDNIGHT + minute * MINUTE)
    });
    println!("{} views", write_all(&producer, views).await?);

    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(&topic, StartAt::Earliest).await?;
    let mut visits: BTreeMap<String, Vec<Visit>> = BTreeMap::new();
    for view in read_to_end(&mut consumer).await? {
        let of_user = visits.entry(text(view.key.as_deref())).or_default();
        let page = text(view.value.as_deref());
        match of_user.last_mut() {
            Some(visit) if view.timestamp - visit.ends <= GAP => {
                visit.ends = view.timestamp;
                visit.pages.push(page);
            }
            _ => of_user.push(Visit { begins: view.timestamp, ends: view.timestamp, pages: vec![page] }),
        }
    }
    for (user, visits) in &visits {
        for visit in visits {
            println!("{user} {} to {}: {}", clock(visit.begins), clock(visit.ends), visit.pages.join(" "));
        }
    }
    Ok(())
}
