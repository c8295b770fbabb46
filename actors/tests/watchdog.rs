//! The watchdog sees a blocked arbiter, writes a disk's thread off, and leaves the others alone.
#![cfg(feature = "host")]

mod common;

use std::sync::mpsc;
use std::time::Duration;

use common::*;
use madang_actors::host::{Arbiter, Role, Watchdog, WatchdogLimits};

#[test]
fn a_blocked_arbiter_is_reported_once_with_its_role() {
    real(async {
        let (report, reported) = mpsc::channel();
        let limits = WatchdogLimits {
            warn: Duration::from_millis(300),
            stuck: Duration::from_millis(1000),
            interval: Duration::from_millis(20),
        };
        let watchdog = Watchdog::start(limits, move |name: &str, role: &Role| {
            drop(report.send((name.to_owned(), role.clone())));
        })
        .unwrap();
        let (disk, network) = (
            Arbiter::start("disk-1", Role::Disk("/data/1".into())).unwrap(),
            Arbiter::start("network-1", Role::Network).unwrap(),
        );
        watchdog.watch(&disk);
        watchdog.watch(&network);
        let (release, released) = mpsc::channel::<()>();
        disk.run(move || assert!(released.recv().is_err()));
        let first = reported.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(first, ("disk-1".to_owned(), Role::Disk("/data/1".into())));
        assert!(disk.revoked().is_set() && !network.revoked().is_set());
        drop(release);
        until("the disk's arbiter turns again", || disk.silence() < limits.warn).await;
        assert!(reported.try_recv().is_err(), "reported once");
    });
}
