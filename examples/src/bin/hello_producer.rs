//! Writes three greetings to a topic.
//!
//! ```text
//! cargo run -p madang-examples --bin hello_producer -- [TOPIC]
//! ```
//! Look at: each record's offset, its place in the log. Run it again and the numbers go on, as nothing is overwritten. `hello_consumer` reads them.

use madang_client::{Producer, ProducerConfig, ProducerRecord};
use madang_examples::{Failure, argument, client, ensure_topic};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let topic = argument(1, "hello");
    let client = client();
    // One partition: one log, in which all records are in one order.
    ensure_topic(&client, &topic, 1, &[]).await?;

    // Idempotent by default: a record that has to be sent again is still written once.
    let producer = Producer::new(client, ProducerConfig::default());
    for name in ["world", "Kafka", "Madang"] {
        // `send` hands the record to the producer; its answer comes once the broker has it as safely as it promises.
        let delivery = producer.send(ProducerRecord::new(topic.as_str()).value(format!("hello, {name}"))).await?;
        let written = delivery.await?;
        println!("hello, {name} is at offset {}", written.offset);
    }
    Ok(())
}
