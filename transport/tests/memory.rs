//! What clients that announce and do not send cost. One test, alone in its process, because it reads the process's memory.

mod common;

use common::{Node, run};
use madang_transport::MemoryBudget;
use madang_transport::kafka::ConnectionSettings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("procfs");
    pages * 4096
}

#[test]
fn announced_bytes_cost_nothing_until_they_are_sent() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("a higher limit");
    run(|| async {
        // So small that the stalled frames take all of the half for frames that are arriving.
        let node = Node::start_with(ConnectionSettings::default(), MemoryBudget::new(16 << 20));
        let mut good = node.connect().await;
        assert_eq!(good.ask("e").await, b"e");
        let before = resident();
        let mut stalled = Vec::new();
        for _ in 0..500 {
            let mut client = node.connect().await;
            client.0.write_all(&50_000_000_u32.to_be_bytes()).await.expect("an open connection");
            client.0.write_all(&[0; 40_000]).await.expect("an open connection");
            stalled.push(client);
        }
        let large = vec![b'e'; 10_000];
        for _ in 0..100 {
            assert_eq!(good.ask("e").await, b"e");
            assert_eq!(good.ask(&large).await, large);
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes more are resident");
        assert_eq!(node.stats.open_connections(), 501);
    });
}
