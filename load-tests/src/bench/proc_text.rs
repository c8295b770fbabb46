//! What the kernel says of processes, cores and disks, from its text.
//! Invariant: what a text does not say is none, never 0.

use serde::{Deserialize, Serialize};

/// What a process, or several, have used so far, and what they hold now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu_s: f64,
    /// Bytes that were to go to a disk.
    pub written_bytes: u64,
    /// Bytes that came from a disk.
    pub read_bytes: u64,
    /// Resident memory now, page cache not counted.
    pub resident_bytes: u64,
    /// Waits.
    pub voluntary_switches: u64,
    /// Taken off the core.
    pub involuntary_switches: u64,
    /// Threads now.
    pub threads: u64,
    /// Open files and sockets now.
    pub descriptors: u64,
}

impl Usage {
    /// Of two processes together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_s: self.cpu_s + other.cpu_s,
            written_bytes: self.written_bytes + other.written_bytes,
            read_bytes: self.read_bytes + other.read_bytes,
            resident_bytes: self.resident_bytes + other.resident_bytes,
            voluntary_switches: self.voluntary_switches + other.voluntary_switches,
            involuntary_switches: self.involuntary_switches + other.involuntary_switches,
            threads: self.threads + other.threads,
            descriptors: self.descriptors + other.descriptors,
        }
    }

    /// What was used since `earlier`; what is held stays as it is now.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu_s: self.cpu_s - earlier.cpu_s,
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(earlier.involuntary_switches),
            ..self
        }
    }
}

/// Ticks of user and system time, from `/proc/PID/stat`.
#[must_use]
pub fn cpu_ticks(stat: &str) -> Option<u64> {
    // After the name, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// Nanoseconds that a thread was on a processor, from `/proc/PID/task/TID/schedstat`.
#[must_use]
pub fn run_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// A number behind a name and a colon, from `/proc/PID/status` or `/proc/PID/io`.
#[must_use]
pub fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Flushes that a disk has done, from `/sys/block/NAME/stat`; none from kernels that do not count them.
#[must_use]
pub fn flushes(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(15)?.parse().ok()
}

/// Ticks that each of these cores was busy, from `/proc/stat`.
#[must_use]
pub fn busy_ticks(stat: &str, cores: &[usize]) -> Option<u64> {
    let core = |number: &usize| {
        let name = format!("cpu{number} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
        let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
        // user, nice, system, then idle and waiting for disks; interrupts and steal after them; guests are in the first two.
        (fields.len() >= 8).then(|| fields[..3].iter().sum::<u64>() + fields[5..8].iter().sum::<u64>())
    };
    cores.iter().map(core).sum()
}

/// The disk that holds a file, as `/sys/dev/block` names it: the end of the link's target, with the partition taken off.
#[must_use]
pub fn disk_of_link(target: &str) -> Option<&str> {
    let mut parts = target.rsplit('/');
    let (last, before) = (parts.next()?, parts.next()?);
    // .../block/vda is a disk, .../block/vda/vda1 a partition of it.
    Some(if before == "block" { last } else { before })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_may_hold_anything() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194560 1 2 3 4 250 75 0 0 20 0 4 0 100 1000 500";
        assert_eq!(cpu_ticks(stat), Some(325));
        assert_eq!(cpu_ticks("12 (cut) S 1 12"), None);
    }

    #[test]
    fn the_time_on_a_processor_is_the_first_number() {
        assert_eq!(run_ns("123456 78 9\n"), Some(123_456));
        assert_eq!(run_ns(""), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "VmRSSX:\t1 kB\nVmRSS:\t   2048 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t9\n";
        assert_eq!(field(status, "VmRSS"), Some(2048));
        assert_eq!(field(status, "voluntary_ctxt_switches"), Some(7));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches"), Some(9));
        assert_eq!(field(status, "Threads"), None);
    }

    #[test]
    fn flushes_are_the_sixteenth_number_and_older_kernels_have_none() {
        assert_eq!(flushes(" 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17"), Some(16));
        assert_eq!(flushes(" 1 2 3 4 5 6 7 8 9 10 11"), None);
    }

    #[test]
    fn a_core_is_not_busy_while_it_waits() {
        let stat =
            "cpu  9 9 9 9 9 9 9 9\ncpu0 1 2 3 1000 1000 4 5 6 0 0\ncpu1 10 0 0 5 5 0 0 0 0 0\ncpu10 7 7 7 7 7 7 7 7\n";
        assert_eq!(busy_ticks(stat, &[0]), Some(21));
        assert_eq!(busy_ticks(stat, &[0, 1]), Some(31));
        assert_eq!(busy_ticks(stat, &[2]), None);
    }

    #[test]
    fn a_partition_belongs_to_its_disk() {
        assert_eq!(disk_of_link("../../devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda1"), Some("vda"));
        assert_eq!(disk_of_link("../../devices/virtual/block/loop0"), Some("loop0"));
    }

    #[test]
    fn what_is_held_is_not_subtracted() {
        let earlier = Usage { cpu_s: 1.0, written_bytes: 10, resident_bytes: 100, ..Usage::default() };
        let later = Usage { cpu_s: 3.0, written_bytes: 25, resident_bytes: 120, ..Usage::default() };
        let used = later.since(earlier);
        assert_eq!((used.cpu_s, used.written_bytes, used.resident_bytes), (2.0, 15, 120));
        assert_eq!(later.plus(later).resident_bytes, 240);
    }
}
