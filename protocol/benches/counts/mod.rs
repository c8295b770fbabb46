//! Counts the instructions of workloads under callgrind and compares them with those in a file.
//!
//! Invariant: the same program on the same inputs gives the same numbers on every x86-64 machine. Callgrind shows each program the same
//! processor whatever the real one is, with an empty environment and fixed addresses; nothing in a workload depends on a clock, a seed or an address.
//! What remains is the compiler, whose counts are another program's, and the C library, whose part is counted apart: where
//! the compiler is another nothing is judged, where the C library is another its part is not.
#![allow(dead_code, unreachable_pub, reason = "its test uses the pure half alone")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

/// A count may be so much above what the file says, in percent: another path of the sources moves what is inlined a little.
const SPREAD: f64 = 2.0;
/// Calls that are counted, after one that is not: what is made once is made there.
const CALLS: u64 = 8;
/// `rep movsb` counts an instruction for each byte, so that one copy of a batch would hide all else: copies are loops of vectors here.
const TUNABLES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=0x7fffffffffff:glibc.cpu.x86_rep_stosb_threshold=0x7fffffffffff";

/// Something whose instructions are counted: makes its inputs, then calls [`count`] once.
pub struct Workload {
    pub name: &'static str,
    pub run: fn(),
}

/// Where callgrind counts, by this function's name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    for _ in 0..CALLS {
        work();
    }
}

/// Calls `work` some times and counts them.
pub fn count(mut work: impl FnMut()) {
    work();
    counted(&mut work);
}

/// Instructions of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Of the program itself.
    pub own: u64,
    /// Of shared objects: allocation, copies, system calls.
    pub library: u64,
}

/// Instructions in callgrind's output, those of `program` and those of all else. An inclusive line after `calls=` is the callee's, who has its own.
pub fn parse(output: &str, program: &str) -> Count {
    let mut names: BTreeMap<&str, bool> = BTreeMap::new();
    let (mut is_own, mut of_call, mut all) = (false, false, Count::default());
    for line in output.lines() {
        if let Some(object) = line.strip_prefix("ob=").or_else(|| line.strip_prefix("cob=")) {
            let (number, name) = object.split_once(' ').unwrap_or((object, ""));
            let known = names.entry(number).or_insert_with(|| name == program);
            if line.starts_with("ob=") {
                is_own = *known;
            }
        } else if line.starts_with("calls=") {
            of_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost: u64 = line.split_whitespace().nth(1).and_then(|cost| cost.parse().ok()).unwrap_or(0);
            if !std::mem::take(&mut of_call) {
                *(if is_own { &mut all.own } else { &mut all.library }) += cost;
            }
        }
    }
    all
}

/// What the numbers depend on: the compiler, and what else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    pub compiler: String,
    pub library: String,
    pub valgrind: String,
}

/// The file: what it was made with, and the counts by name with the spread that each is allowed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    pub made: Made,
    pub counts: BTreeMap<String, (Count, f64)>,
}

impl Expected {
    pub fn read(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            if let Some((key, value)) = line.strip_prefix("# ").and_then(|line| line.split_once(": ")) {
                match key {
                    "compiler" => read.made.compiler = value.to_owned(),
                    "library" => read.made.library = value.to_owned(),
                    "valgrind" => read.made.valgrind = value.to_owned(),
                    _ => {}
                }
            }
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, own, library, spread] = fields[..] else { continue };
            if let (Ok(own), Ok(library), Ok(spread)) = (own.parse(), library.parse(), spread.parse()) {
                read.counts.insert(name.to_owned(), (Count { own, library }, spread));
            }
        }
        read
    }

    pub fn write(made: &Made, counts: &[(&str, Count)], before: &Self) -> String {
        let mut text = format!(
            "# Instructions of one call under callgrind: of the program itself, of the C library, and how much more is let through, in percent.\n\
             # `UPDATE_COUNTS=1 .ci/parts/instructions.sh` writes what is measured; the spread is kept.\n\
             # compiler: {}\n# library: {}\n# valgrind: {}\nworkload\tprogram\tlibrary\tspread\n",
            made.compiler, made.library, made.valgrind
        );
        for (name, count) in counts {
            let spread = before.counts.get(*name).map_or(SPREAD, |(_, spread)| *spread);
            let _ = writeln!(text, "{name}\t{}\t{}\t{spread}", count.own, count.library);
        }
        text
    }
}

/// What is said of one count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// More than the spread lets through.
    Above,
    /// So much below that the file would let a later rise through.
    Below,
    /// The file does not have it.
    Unknown,
}

/// Compares the program's part, and the whole if the C library is the one that the file was made with.
pub fn judge(measured: Count, expected: Option<&(Count, f64)>, with_library: bool) -> Verdict {
    let Some((expected, spread)) = expected else { return Verdict::Unknown };
    let off = |now: u64, then: u64| (now as f64 - then as f64) * 100.0 / (then.max(1) as f64);
    let own = off(measured.own, expected.own);
    let whole = if with_library { off(measured.own + measured.library, expected.own + expected.library) } else { own };
    if own.max(whole) > *spread {
        Verdict::Above
    } else if own.min(whole) < -*spread {
        Verdict::Below
    } else {
        Verdict::Same
    }
}

fn said_by(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn made() -> Result<Made, String> {
    let compiler = said_by("rustc", &["--version"])?;
    Ok(Made {
        compiler: format!("{compiler}, {}", std::env::consts::ARCH),
        library: said_by("getconf", &["GNU_LIBC_VERSION"])?,
        valgrind: said_by("valgrind", &["--version"]).map_err(|why| format!("{why}; apt-get install valgrind"))?,
    })
}

/// Runs one workload in a process of its own, so that no other's allocations are in its way.
fn measure(name: &str) -> Result<Count, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = std::env::temp_dir().join(format!("instructions-{}", std::process::id()));
    let run = || {
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let file = folder.join("out");
        let output = Command::new("valgrind")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GLIBC_TUNABLES", TUNABLES)
            .args(["--tool=callgrind", "--quiet", "--collect-atstart=no", "--toggle-collect=*counts*counted*"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(&program)
            .args(["--workload", name])
            .output()
            .map_err(|error| format!("valgrind: {error}"))?;
        if !output.status.success() {
            return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(parse(&text, &program.display().to_string()))
    };
    let counted: Result<Count, String> = run();
    drop(std::fs::remove_dir_all(&folder));
    match counted? {
        Count { own: 0, .. } => Err(format!("{name}: nothing was counted")),
        count => Ok(Count { own: count.own / CALLS, library: count.library / CALLS }),
    }
}

/// Measures and compares all; the exit code is 1 if one is above what the file allows or is not in it.
fn compare(workloads: &[Workload], path: &Path) -> Result<bool, String> {
    let made = made()?;
    let expected = Expected::read(&std::fs::read_to_string(path).unwrap_or_default());
    let is_update = std::env::var_os("UPDATE_COUNTS").is_some();
    let with_library = made.library == expected.made.library;
    let mut counts = Vec::new();
    let mut is_good = true;
    println!("{:<62}{:>10}{:>10}{:>11}{:>9}", "instructions of one call", "program", "library", "expected", "");
    for workload in workloads {
        let count = measure(workload.name)?;
        let before = expected.counts.get(workload.name);
        let verdict = judge(count, before, with_library);
        let word = match verdict {
            Verdict::Same => "",
            Verdict::Above => "ABOVE",
            Verdict::Below => "below",
            Verdict::Unknown => "UNKNOWN",
        };
        let then = before.map_or_else(String::new, |(then, _)| format!("{}+{}", then.own, then.library));
        println!("{:<62}{:>10}{:>10}  {then:<18}{word}", workload.name, count.own, count.library);
        is_good &= matches!(verdict, Verdict::Same | Verdict::Below);
        counts.push((workload.name, count));
    }
    if is_update {
        std::fs::write(path, Expected::write(&made, &counts, &expected)).map_err(|error| error.to_string())?;
        println!("written: {}", path.display());
        return Ok(true);
    }
    if made.compiler != expected.made.compiler && !expected.counts.is_empty() {
        println!("not judged: the counts are of {}, and this is {}", expected.made.compiler, made.compiler);
        return Ok(true);
    }
    if !with_library {
        println!(
            "the library's part is not judged: the counts are of {}, this is {}",
            expected.made.library, made.library
        );
    }
    println!("what is meant is taken over with UPDATE_COUNTS=1 .ci/parts/instructions.sh, and is in the commit's body");
    Ok(is_good)
}

/// Compares `workloads` with `file`, or is the process in which one is counted.
pub fn main(workloads: &[Workload], file: &str) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--workload") {
        let wanted = arguments.get(at + 1).and_then(|name| workloads.iter().find(|one| one.name == name));
        return wanted.map_or(ExitCode::from(2), |workload| {
            (workload.run)();
            ExitCode::SUCCESS
        });
    }
    match compare(workloads, Path::new(file)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("instructions: {why}");
            ExitCode::from(2)
        }
    }
}
