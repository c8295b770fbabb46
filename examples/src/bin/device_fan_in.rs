//! Many small devices, each with a connection of its own, write their readings into one topic; one reader sees all of them.
//!
//! ```text
//! cargo run -p madang-examples --bin device_fan_in -- [TOPIC] [DEVICES] [READINGS]
//! ```
//! Look at: each device's readings arrive complete and in order, whatever the others do, as the device is the key.

use std::collections::BTreeMap;

use madang_client::{Consumer, ConsumerConfig, Producer, ProducerConfig, ProducerRecord, StartAt};
use madang_examples::{Failure, argument, client, new_topic, read_to_end, text, write_all};
use tokio::task::JoinSet;

/// What the reader knows of a device.
#[derive(Default)]
struct Seen {
    /// The number that its next reading should have.
    next: usize,
    sum: usize,
    is_in_order: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let topic = argument(1, "devices");
    let (devices, readings) = (argument(2, "100").parse::<usize>()?, argument(3, "20").parse::<usize>()?);
    let reader = client();
    new_topic(&reader, &topic, 6, &[]).await?;

    let mut running = JoinSet::new();
    for number in 0..devices {
        running.spawn(device(topic.clone(), number, readings));
    }
    let mut written = 0;
    while let Some(outcome) = running.join_next().await {
        written += outcome??;
    }
    println!("{devices} devices wrote {written} readings");

    let mut consumer = Consumer::new(reader, ConsumerConfig::default());
    consumer.assign(&topic, StartAt::Earliest).await?;
    let records = read_to_end(&mut consumer).await?;
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for record in &records {
        let value = text(record.value.as_deref());
        let (number, degrees) = value.split_once(' ').ok_or_else(|| Failure::new(format!("no reading: {value}")))?;
        let first = || Seen { is_in_order: true, ..Seen::default() };
        let of_device = seen.entry(text(record.key.as_deref())).or_insert_with(first);
        of_device.is_in_order &= number.parse() == Ok(of_device.next);
        of_device.next += 1;
        of_device.sum += degrees.parse::<usize>()?;
    }
    let complete = seen.values().filter(|device| device.is_in_order && device.next == readings).count();
    println!("{} readings of {} devices read", records.len(), seen.len());
    println!("{complete} devices are complete and in order");
    if let Some((name, hottest)) = seen.iter().max_by_key(|(_, device)| device.sum) {
        println!("{name} is the hottest: {} degrees on average", hottest.sum / readings.max(1));
    }
    Ok(())
}

/// One device: a client, so a connection, of its own.
async fn device(topic: String, number: usize, readings: usize) -> Result<usize, Failure> {
    let producer = Producer::new(client(), ProducerConfig::default());
    let reading = |at: usize| {
        let degrees = 10 + (number * 7) % 23 + at % 3;
        ProducerRecord::new(topic.as_str()).key(format!("device-{number:03}")).value(format!("{at} {degrees}"))
    };
    write_all(&producer, (0..readings).map(reading)).await
}
