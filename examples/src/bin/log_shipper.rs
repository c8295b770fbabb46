//! Ships the lines of log files into a topic, each file's in order: the file's name is the key, and records of one key are in one partition.
//!
//! ```text
//! cargo run -p madang-examples --bin log_shipper -- TOPIC [--follow] FILE...
//! ```
//! Look at: run it twice and the second run ships nothing, add a line to a file and it ships that one. How far it was is not on this machine: each record
//! carries where its line ended. With `--follow` it goes on until Ctrl-C. `log_reader` merges what came from all files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use madang_client::{
    Client, Codec, Compression, Consumer, ConsumerConfig, Producer, ProducerConfig, ProducerRecord, StartAt,
};
use madang_examples::{Failure, client, ensure_topic, read_to_end, text, write_all};

/// The header that says at which byte of its file the next line begins.
const NEXT: &str = "next";

/// How often a file that is followed is looked at.
const LOOK: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut files: Vec<String> = std::env::args().skip(1).collect();
    let is_following = files.iter().any(|argument| argument == "--follow");
    files.retain(|argument| argument != "--follow");
    if files.len() < 2 {
        return Err(Failure::new("usage: log_shipper TOPIC [--follow] FILE..."));
    }
    let topic = files.remove(0);
    let client = client();
    ensure_topic(&client, &topic, 3, &[]).await?;
    let mut places = shipped(&client, &topic).await?;

    // Log lines compress well, and better many at once: a batch may wait a little for more of them.
    let config = ProducerConfig {
        compression: Compression::of(Codec::Zstd),
        linger: Duration::from_millis(50),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client, config);
    loop {
        for file in &files {
            let place = places.entry(file.clone()).or_default();
            let (lines, next) = new_lines(file, *place).map_err(|error| Failure::new(format!("{file}: {error}")))?;
            let records = lines.into_iter().map(|(line, end)| {
                ProducerRecord::new(topic.as_str()).key(file.clone()).value(line).header(NEXT, end.to_string())
            });
            let count = write_all(&producer, records).await?;
            *place = next;
            if count > 0 || !is_following {
                println!("{file}: {count} lines shipped");
            }
        }
        if !is_following {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// How far each file is in the topic already.
async fn shipped(client: &Client, topic: &str) -> Result<HashMap<String, u64>, Failure> {
    let mut consumer = Consumer::new(client.clone(), ConsumerConfig::default());
    consumer.assign(topic, StartAt::Earliest).await?;
    let mut places = HashMap::new();
    for record in read_to_end(&mut consumer).await? {
        let next = record.headers.iter().find(|(name, _)| name == NEXT).and_then(|(_, value)| value.as_deref());
        places.insert(text(record.key.as_deref()), text(next).parse()?);
    }
    Ok(places)
}

/// The whole lines from a byte on, each with where the next one begins. A line that is still being written waits for its end.
fn new_lines(file: &str, from: u64) -> std::io::Result<(Vec<(String, u64)>, u64)> {
    let mut file = File::open(file)?;
    // A file that has become shorter was begun anew.
    let mut at = if file.metadata()?.len() < from { 0 } else { from };
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut lines = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        at += line.len() as u64;
        lines.push((String::from_utf8_lossy(line).trim_end().to_owned(), at));
    }
    Ok((lines, at))
}
