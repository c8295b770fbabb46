//! Reads a topic from its beginning to where it ends at the moment.
//!
//! ```text
//! cargo run -p madang-examples --bin hello_producer
//! cargo run -p madang-examples --bin hello_consumer -- [TOPIC]
//! ```
//! Look at: run it twice and it reads the same, as reading takes nothing away. `order_service` shows readers that remember where they were.

use std::time::Duration;

use madang_client::{Consumer, ConsumerConfig, StartAt};
use madang_examples::{Failure, argument, client, text};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let topic = argument(1, "hello");
    let client = client();

    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(&topic, StartAt::Earliest).await?;
    // A log has no last record. This program asks once where each partition ends, so that it can end too; others go on polling.
    let ends = consumer.offsets(StartAt::Latest).await?;
    while consumer.positions().any(|(topic, partition, at)| at < ends[&(topic.to_owned(), partition)]) {
        // Returns as soon as there is something, and empty-handed after a second.
        for record in consumer.poll(Duration::from_secs(1)).await? {
            println!("{}: {}", record.offset, text(record.value.as_deref()));
        }
    }
    Ok(())
}
