//! Answers that are in files, and readers that do not read, over real sockets.

mod common;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use common::{FileRegion, Node, regions, run};
use madang_protocol::payload::Payload;
use madang_transport::CloseReason;
use madang_transport::kafka::ConnectionSettings;

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn file_of(bytes: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("a temporary file");
    Arc::new(file)
}

#[test]
fn regions_arrive_as_they_are_in_the_file() {
    run(|| async {
        let content = pattern(3 << 20);
        let file = file_of(&content);
        let node = Node::start(ConnectionSettings::default());
        let mut client = node.connect().await;
        let lengths = [1, 0, 100, 16 << 10, (16 << 10) + 1, 300_000, 256 << 10, 1 << 20, 1_500_001];
        for (warm, has_fd) in [(true, true), (false, true), (true, false), (false, false)] {
            let mut expected = b"head".to_vec();
            let mut list = Vec::new();
            for (number, length) in lengths.into_iter().enumerate() {
                let position = number * 4_321;
                expected.extend_from_slice(&content[position..position + length]);
                list.push(FileRegion { file: Arc::clone(&file), position: position as u64, length, warm, has_fd });
            }
            expected.extend_from_slice(b"tail");
            let payloads = vec![
                Payload::Bytes(bytes::Bytes::from_static(b"head")),
                regions(list),
                Payload::Bytes(bytes::Bytes::from_static(b"tail")),
            ];
            *node.seen.regions.borrow_mut() = payloads;
            assert!(client.ask("r").await == expected, "warm {warm}, descriptor {has_fd}");
            assert_eq!(client.ask("e").await, b"e");
        }
    });
}

#[test]
fn ten_thousand_small_regions_arrive_whole() {
    run(|| async {
        let content = pattern(1 << 20);
        let file = file_of(&content);
        let node = Node::start(ConnectionSettings::default());
        let region = |number: u64| FileRegion {
            file: Arc::clone(&file),
            position: number * 97,
            length: 500,
            warm: true,
            has_fd: true,
        };
        *node.seen.regions.borrow_mut() = vec![regions((0..10_000).map(region).collect())];
        let expected: Vec<u8> =
            (0..10_000).flat_map(|number| content[number * 97..number * 97 + 500].to_vec()).collect();
        assert!(node.connect().await.ask("r").await == expected);
    });
}

#[test]
fn what_is_cold_and_longer_than_any_buffer_arrives_whole() {
    run(|| async {
        let content = pattern(24 << 20);
        let file = file_of(&content);
        let node = Node::start(ConnectionSettings::default());
        let region = FileRegion { file, position: 77, length: (24 << 20) - 77, warm: false, has_fd: true };
        *node.seen.regions.borrow_mut() = vec![regions(vec![region])];
        let mut client = node.connect().await;
        client.send("r").await;
        // The answer fills every buffer before anybody reads it, and others are served.
        let mut good = node.connect().await;
        while node.stats.bytes_out() < 1 << 20 {
            assert_eq!(good.ask("e").await, b"e");
        }
        assert!(client.receive().await == content[77..]);
        assert_eq!(client.ask("e").await, b"e");
    });
}

#[test]
fn a_file_that_became_shorter_closes_the_connection() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        for (warm, has_fd) in [(true, true), (false, true), (true, false)] {
            let file = file_of(&pattern(100_000));
            let region = FileRegion { file: Arc::clone(&file), position: 0, length: 100_000, warm, has_fd };
            *node.seen.regions.borrow_mut() = vec![regions(vec![region])];
            file.set_len(50_000).expect("a temporary file");
            let mut client = node.connect().await;
            client.send("r").await;
            assert!(client.read_to_close().await < 100_004);
        }
        assert_eq!(node.stats.closed_for(CloseReason::RegionTruncated), 3);
        assert_eq!(node.connect().await.ask("e").await, b"e");
    });
}

#[test]
fn a_reader_that_does_not_read_is_closed_and_pins_one_answer() {
    run(|| async {
        does_not_read(true).await;
        does_not_read(false).await;
    });
}

async fn does_not_read(warm: bool) {
    let settings = ConnectionSettings { write_stall: Duration::from_millis(300), ..ConnectionSettings::default() };
    let node = Node::start(settings);
    let length = 64 << 20;
    let file = tempfile::tempfile().expect("a temporary file");
    file.set_len(length as u64).expect("a temporary file");
    let region = FileRegion { file: Arc::new(file), position: 0, length, warm, has_fd: true };
    *node.seen.regions.borrow_mut() = vec![regions(vec![region])];
    let mut slow = node.connect().await;
    for _ in 0..50 {
        slow.send("r").await;
    }
    node.seen.wait_admitted(1).await;
    let mut good = node.connect().await;
    assert_eq!(good.ask("e").await, b"e");
    while node.stats.closed_for(CloseReason::WriteStalled) == 0 {
        assert_eq!(good.ask("e").await, b"e");
    }
    let admitted = node.seen.admitted.borrow().iter().filter(|name| *name == "r").count();
    assert_eq!(admitted, 1, "requests were admitted although the answer before them had not left");
    assert!(slow.read_to_close().await < length);
}

#[test]
fn answers_nobody_reads_stop_the_reading_of_requests() {
    run(|| async {
        let settings = ConnectionSettings { write_stall: Duration::from_millis(300), ..ConnectionSettings::default() };
        let node = Node::start(settings);
        let mut slow = node.connect().await;
        let body = vec![b'e'; 1 << 20];
        let sending =
            async { while tokio::io::AsyncWriteExt::write_all(&mut slow.0, &common::frame(&body)).await.is_ok() {} };
        sending.await;
        assert_eq!(node.stats.closed_for(CloseReason::WriteStalled), 1);
        assert!(node.stats.bytes_in() < 64 << 20, "{} bytes were read", node.stats.bytes_in());
    });
}
