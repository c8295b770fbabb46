//! Processes by their id: who is whose child, and signals.
//! Invariant: a signal goes to a process that a run started, or to a child of one.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// The children of a process that are alive.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// Of a process that is there and no zombie.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything.
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    let state = rest.next()?;
    rest.next()?.parse().ok().filter(|_| state != "Z")
}

/// Sends a signal; false if the process is gone.
pub(crate) fn signal(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Whether the process is there and no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    parent_of(pid).is_some()
}
