//! Who did what in a span of time: a log of actions, read again from one moment to another.
//!
//! ```text
//! cargo run -p madang-examples --bin audit_replay -- [TOPIC] [FROM] [TO]
//! ```
//! FROM and TO are hours of the day, 9 and 12 if absent. Look at: it does not read what was before; the broker finds the place of a time in each partition.

use madang_client::{Consumer, ConsumerConfig, Producer, ProducerConfig, ProducerRecord, StartAt};
use madang_examples::{
    Failure, KEPT_FOR_EVER, MIDNIGHT, MINUTE, argument, client, clock, new_topic, read_until, text, write_all,
};

/// Who acts, in turns, and what they do.
const ACTORS: [&str; 4] = ["ann", "bob", "cat", "root"];
const ACTIONS: [&str; 5] = ["reads the payroll", "changes a role", "logs in", "exports customers", "logs out"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let topic = argument(1, "audit");
    let hour = |place, default| -> Result<i64, Failure> {
        Ok(MIDNIGHT + 60 * MINUTE * argument(place, default).parse::<i64>()?)
    };
    let (from, to) = (hour(2, "9")?, hour(3, "12")?);
    let client = client();
    new_topic(&client, &topic, 3, &[KEPT_FOR_EVER]).await?;

    // A day of actions, one every half hour. A header carries what is not the action itself.
    let producer = Producer::new(client.clone(), ProducerConfig::default());
    let day = (0..48_usize).map(|number| {
        ProducerRecord::new(topic.as_str())
            .key(ACTORS[number % ACTORS.len()])
            .value(ACTIONS[number % ACTIONS.len()])
            .header("request", number.to_string())
            .timestamp(MIDNIGHT + 30 * MINUTE * number as i64)
    });
    println!("{} actions recorded", write_all(&producer, day).await?);

    // In each partition: from the first record that is not older than one time, to the first that is not older than the other.
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(&topic, StartAt::Timestamp(from)).await?;
    let ends = consumer.offsets(StartAt::Timestamp(to)).await?;
    let mut span = read_until(&mut consumer, &ends).await?;
    let read = span.len();
    // A poll may return records behind the ends, and clocks of writers may disagree: what counts is each record's own time.
    span.retain(|record| (from..to).contains(&record.timestamp));
    span.sort_by_key(|record| record.timestamp);
    for record in &span {
        let request = record.headers.first().and_then(|(_, value)| value.as_deref());
        let (actor, action) = (text(record.key.as_deref()), text(record.value.as_deref()));
        println!("{} {actor} {action} (request {})", clock(record.timestamp), text(request));
    }
    println!("{} actions from {} to {}", span.len(), clock(from), clock(to));
    eprintln!("{read} records were read for that");
    Ok(())
}
