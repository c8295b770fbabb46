//! Features of shops for a model: one reader takes all of them at once, to train; the other takes each change as it comes, to serve.
//!
//! ```text
//! cargo run -p madang-examples --bin feature_feed -- [TOPIC]
//! ```
//! Look at: the live reader begins exactly where the batch ended, so nothing is missed and nothing is read twice, and both end with the same numbers.

use std::collections::BTreeMap;

use madang_client::{Consumer, ConsumerConfig, ConsumerRecord, Producer, ProducerConfig, ProducerRecord, StartAt};
use madang_examples::{COMPACTED, Failure, argument, client, new_topic, read_to_end, text, write_all};

/// A shop and its features, the newest ones.
type Features = BTreeMap<String, String>;

fn put(features: &mut Features, records: &[ConsumerRecord]) {
    for record in records {
        features.insert(text(record.key.as_deref()), text(record.value.as_deref()));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let topic = argument(1, "features");
    let client = client();
    new_topic(&client, &topic, 3, &[COMPACTED]).await?;
    let producer = Producer::new(client.clone(), ProducerConfig::default());
    let features = |round: usize, shops: std::ops::Range<usize>| {
        let topic = topic.clone();
        shops.map(move |shop| {
            let value = format!("orders={} stars={}", shop * 3 + round, 1 + (shop + round) % 5);
            ProducerRecord::new(topic.as_str()).key(format!("shop-{shop:02}")).value(value)
        })
    };
    let mut written = 0;
    for round in 1..=3 {
        written += write_all(&producer, features(round, 0..20)).await?;
    }

    // The batch: all that is there now, and where that ends.
    let mut batch = Consumer::new(client.clone(), ConsumerConfig::default());
    batch.assign(&topic, StartAt::Earliest).await?;
    let mut trained = Features::new();
    let records = read_to_end(&mut batch).await?;
    put(&mut trained, &records);
    // The broker may have thrown out older records of a shop meanwhile, so this number is no promise; that of the shops is.
    eprintln!("batch: {} of {written} records read", records.len());
    println!("batch: {} shops, shop-07 has {}", trained.len(), trained["shop-07"]);

    // The live one starts with what the batch knows, at the place at which it ended.
    let mut live = Consumer::new(client.clone(), ConsumerConfig::default());
    for (topic, partition, offset) in batch.positions() {
        live.assign_partition(&topic.into(), partition, offset);
    }
    let mut served = trained.clone();
    // Changes come: of some shops, and of three new ones.
    let changes = write_all(&producer, features(4, 5..8)).await? + write_all(&producer, features(4, 20..23)).await?;
    let records = read_to_end(&mut live).await?;
    put(&mut served, &records);
    println!("live: {} of {changes} changes, {} shops, shop-07 has {}", records.len(), served.len(), served["shop-07"]);

    // A batch of now sees what the live reader has.
    let mut again = Consumer::new(client.clone(), ConsumerConfig::default());
    again.assign(&topic, StartAt::Earliest).await?;
    let mut retrained = Features::new();
    put(&mut retrained, &read_to_end(&mut again).await?);
    println!("the next batch: {}", if retrained == served { "the same as live" } else { "something else than live" });
    Ok(())
}
