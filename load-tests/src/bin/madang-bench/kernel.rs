//! What the kernel says of processes, cores and disks, and which cores a thread may use. Linux only.
//! Invariant: nothing here changes anything but the cores of the calling thread and what is in the page cache.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use madang_load_tests::bench::proc_text::{self, Usage};
use madang_load_tests::bench::report::Machine;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// What a process has used so far; none if it is gone.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let ticks = proc_text::cpu_ticks(&text(format!("/proc/{pid}/stat"))?)?;
    let status = text(format!("/proc/{pid}/status"))?;
    // Absent where another user's process may not be looked into.
    let io = text(format!("/proc/{pid}/io")).unwrap_or_default();
    let (mut voluntary, mut involuntary) = (0, 0);
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let status = text(task.path().join("status")).unwrap_or_default();
        voluntary += proc_text::field(&status, "voluntary_ctxt_switches").unwrap_or(0);
        involuntary += proc_text::field(&status, "nonvoluntary_ctxt_switches").unwrap_or(0);
    }
    Some(Usage {
        cpu_s: ticks as f64 / ticks_per_second(),
        written_bytes: proc_text::field(&io, "write_bytes").unwrap_or(0),
        read_bytes: proc_text::field(&io, "read_bytes").unwrap_or(0),
        resident_bytes: proc_text::field(&status, "VmRSS").unwrap_or(0) * 1024,
        voluntary_switches: voluntary,
        involuntary_switches: involuntary,
        threads: proc_text::field(&status, "Threads").unwrap_or(0),
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64),
    })
}

/// Of all of them together; none if one is gone.
pub(crate) fn usage_of_all(pids: &[u32]) -> Option<Usage> {
    pids.iter().map(|pid| usage(*pid)).try_fold(Usage::default(), |sum, one| Some(sum.plus(one?)))
}

/// Seconds that the threads that these processes have now were on a processor, finer than the ticks of [`usage`]; none if a process is gone.
pub(crate) fn cpu_seconds(pids: &[u32]) -> Option<f64> {
    let mut all = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            // A thread may end between the two.
            all += text(task.path().join("schedstat")).and_then(|text| proc_text::run_ns(&text)).unwrap_or(0);
        }
    }
    Some(all as f64 / 1e9)
}

/// A process and all that come from it.
pub(crate) fn family(parent: u32) -> Vec<u32> {
    let mut all = vec![parent];
    let mut at = 0;
    while at < all.len() {
        for task in fs::read_dir(format!("/proc/{}/task", all[at])).into_iter().flatten().flatten() {
            let children = text(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    all
}

/// Seconds that these cores were busy so far, for whomever.
pub(crate) fn busy_seconds(cores: &[usize]) -> Option<f64> {
    let ticks = proc_text::busy_ticks(&text("/proc/stat")?, cores)?;
    Some(ticks as f64 / ticks_per_second())
}

/// Flushes so far of the disk that holds a folder.
pub(crate) fn disk_flushes(folder: &Path) -> Option<u64> {
    let device = fs::metadata(folder).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let disk = proc_text::disk_of_link(link.to_str()?)?;
    proc_text::flushes(&text(format!("/sys/block/{disk}/stat"))?)
}

/// The machine now.
pub(crate) fn machine() -> Machine {
    let cpus = text("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let load = text("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok());
    Machine {
        cpu: model.map_or("an unknown processor", |(_, name)| name.trim()).to_owned(),
        cores: cores().len(),
        kernel: text("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        load: load.unwrap_or(0.0),
    }
}

/// The cores that this process may use.
pub(crate) fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}

/// Keeps the calling thread, and what it starts from now on, to these cores; leaves it as it is if there are none.
///
/// # Errors
/// The system refuses.
pub(crate) fn keep_to(cores: &[usize]) -> Result<(), String> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for core in cores.iter().filter(|core| **core < CpuSet::MAX_CPU) {
        set.set(*core);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("cores {cores:?}: {error}"))
}

/// Takes the files of a folder out of the page cache, as far as they are synced; returns their bytes.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn drop_cached(folder: &Path) -> Result<u64, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            bytes += drop_cached(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "log") {
            let file = File::open(&path).map_err(failed)?;
            bytes += file.metadata().map_err(failed)?.len();
            file.sync_all().map_err(failed)?;
            let dropped = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            dropped.map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(bytes)
}

/// Asks again and again until it says yes; false if it does not in time.
pub(crate) fn poll(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + patience;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_running_on_cores_and_uses_memory() {
        let usage = usage(std::process::id()).expect("this process");
        assert!(usage.resident_bytes > 1 << 16 && usage.threads > 0 && usage.descriptors > 2, "{usage:?}");
        assert!(!cores().is_empty());
        assert_eq!(super::usage(u32::MAX), None);
    }

    #[test]
    fn a_child_belongs_to_its_parents_family() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        assert!(family(std::process::id()).contains(&child.id()));
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
}
