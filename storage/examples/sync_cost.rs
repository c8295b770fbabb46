//! What it costs to bring a number of dirty files to the device: fdatasync one by one on 1, 2 and 4 threads, against one syncfs.
//!
//! `cargo run --release -p madang-storage --example sync_cost -- [DIRECTORY]`

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes appended to each file before it is synced.
const APPEND: usize = 4096;

fn main() -> io::Result<()> {
    let parent = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = parent.join(format!("madang-sync-cost-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let result = measure_all(&directory);
    fs::remove_dir_all(&directory)?;
    result
}

fn measure_all(directory: &Path) -> io::Result<()> {
    println!("milliseconds until all files are synced, median (and worst)");
    println!("{:>6}  {:>18}  {:>18}  {:>18}  {:>18}", "files", "1 thread", "2 threads", "4 threads", "syncfs");
    for (count, rounds) in [(1, 41), (10, 21), (100, 9), (1000, 5)] {
        let files = create(directory, count)?;
        let filesystem = File::open(directory)?;
        let mut row = format!("{count:>6}");
        for threads in [1, 2, 4] {
            row += &cell(&mut samples(&files, rounds, |files| sync_each(files, threads))?);
        }
        let mut whole = samples(&files, rounds, |_| Ok(rustix::fs::syncfs(&filesystem)?))?;
        println!("{row}{}", cell(&mut whole));
    }
    Ok(())
}

fn create(directory: &Path, count: usize) -> io::Result<Vec<File>> {
    let open = |at| OpenOptions::new().create(true).append(true).open(directory.join(format!("{count}-{at}")));
    let files = (0..count).map(open).collect::<io::Result<Vec<_>>>()?;
    File::open(directory)?.sync_all()?;
    Ok(files)
}

fn samples(files: &[File], rounds: usize, sync: impl Fn(&[File]) -> io::Result<()>) -> io::Result<Vec<Duration>> {
    let mut samples = Vec::new();
    for _ in 0..rounds {
        for mut file in files {
            file.write_all(&[7; APPEND])?;
        }
        let start = Instant::now();
        sync(files)?;
        samples.push(start.elapsed());
    }
    Ok(samples)
}

fn sync_each(files: &[File], threads: usize) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            file.sync_data()?;
        }
        io::Result::Ok(())
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panicked"))))
    })
}

fn cell(samples: &mut [Duration]) -> String {
    samples.sort_unstable();
    let at = |place: usize| samples.get(place).map_or(0.0, |sample| sample.as_secs_f64() * 1000.0);
    format!("  {:>9.2} ({:>6.1})", at(samples.len() / 2), at(samples.len().saturating_sub(1)))
}
