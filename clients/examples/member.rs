//! A member of a group that prints what it reads: `cargo run -p madang-client --example member -- 127.0.0.1:9092 GROUP TOPIC [ASSIGNOR]`.
//! Start it several times and see how the members share the topic.

use std::time::Duration;

use madang_client::{
    Assignor, Client, ClientConfig, CommittedOffsets, ConsumerConfig, GroupConfig, GroupConsumer, OutOfRange,
    RebalanceListener, TopicPartition,
};

#[derive(Debug)]
struct Print;

fn list(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

impl RebalanceListener for Print {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        println!("+ {}", list(partitions));
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) -> CommittedOffsets {
        println!("- {}", list(partitions));
        CommittedOffsets::new()
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        println!("! {}", list(partitions));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, group, topic, rest @ ..] = &arguments[..] else {
        return Err("usage: member HOST:PORT GROUP TOPIC [ASSIGNOR]".into());
    };
    let assignor = rest.first().map_or("cooperative-sticky", String::as_str);
    let config = GroupConfig {
        assignors: vec![Assignor::of_name(assignor).ok_or("no such assignor")?],
        // What was processed is committed every second, and when partitions go.
        auto_commit: Some(Duration::from_secs(1)),
        consumer: ConsumerConfig { out_of_range: OutOfRange::Earliest, ..ConsumerConfig::default() },
        ..GroupConfig::new(group)
    };
    let client = Client::new(ClientConfig::new([address]));
    let mut member = GroupConsumer::new(client, config, [topic]).with_listener(Print);
    loop {
        tokio::select! {
            records = member.poll(Duration::from_secs(1)) => {
                for record in records? {
                    let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
                    println!("{}-{} at {}: {value}", record.topic, record.partition, record.offset);
                }
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    // The others take over at once.
    Ok(member.leave().await?)
}
