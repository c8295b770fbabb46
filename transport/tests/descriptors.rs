//! Running out of file descriptors. One test, alone in its process, because it changes the process's limit.

mod common;

use std::fs::File;
use std::time::Duration;

use common::{Node, run};
use madang_transport::kafka::ConnectionSettings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes every descriptor below the limit but one.
fn take_all_but_one() -> Vec<File> {
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken.pop();
    taken
}

#[test]
fn a_listener_out_of_descriptors_pauses_and_goes_on() {
    let usual = getrlimit(Resource::Nofile);
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut first = node.connect().await;
        assert_eq!(first.ask("e").await, b"e");
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: usual.maximum }).expect("a lower limit");
        // Room for the client's end and not for ours.
        let taken = take_all_but_one();
        let mut second = node.connect().await;
        second.send("e2").await;
        let answer = tokio::time::timeout(Duration::from_millis(100), second.receive()).await;
        assert!(answer.is_err(), "the connection was accepted without a descriptor");
        assert_eq!(first.ask("e").await, b"e", "others are served meanwhile");
        drop(taken);
        assert_eq!(second.receive().await, b"e2");
    });
}
