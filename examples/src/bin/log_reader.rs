//! Reads what `log_shipper` wrote and prints the lines of all files as one log, by their time.
//!
//! ```text
//! cargo run -p madang-examples --bin log_reader -- TOPIC
//! ```
//! Look at: the lines of a file come in order, those of different files in any: the topic has one order for each partition, none for all of them.

use std::collections::BTreeMap;

use madang_client::{Consumer, ConsumerConfig, StartAt};
use madang_examples::{Failure, argument, client, read_to_end, text};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let topic = argument(1, "logs");
    let client = client();
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(&topic, StartAt::Earliest).await?;

    let mut by_file: BTreeMap<String, usize> = BTreeMap::new();
    let mut lines = Vec::new();
    for record in read_to_end(&mut consumer).await? {
        let (file, line) = (text(record.key.as_deref()), text(record.value.as_deref()));
        *by_file.entry(file.clone()).or_default() += 1;
        // The first word of a line is its time, written so that it sorts.
        let time = line.split(' ').next().unwrap_or_default().to_owned();
        lines.push((time, file, line));
    }
    // A stable sort: lines of one file and one time stay as they were.
    lines.sort_by(|(time, file, _), (other_time, other, _)| (time, file).cmp(&(other_time, other)));
    for (_, file, line) in &lines {
        println!("{}  {line}", file.rsplit('/').next().unwrap_or(file));
    }
    for (file, count) in &by_file {
        println!("{file}: {count} lines");
    }
    Ok(())
}
