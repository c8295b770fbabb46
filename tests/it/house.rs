//! The rules of the house: who may import whom, what a core may not name, how long a file may be, which licences come in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Every edge that is allowed between our crates (dev-dependencies aside); ARCHITECTURE.md draws the same table.
const IMPORTS: &[(&str, &[&str])] = &[
    (
        "madang",
        &["madang-actors", "madang-client", "madang-cluster", "madang-protocol", "madang-storage", "madang-transport"],
    ),
    ("madang-actors", &[]),
    ("madang-client", &["madang-protocol"]),
    ("madang-cluster", &["madang-actors", "madang-protocol", "madang-storage"]),
    ("madang-protocol", &["madang-protocol-derive"]),
    ("madang-protocol-derive", &[]),
    ("madang-simulator", &["madang", "madang-actors", "madang-cluster", "madang-protocol", "madang-storage"]),
    ("madang-storage", &["madang-actors", "madang-protocol"]),
    ("madang-transport", &["madang-actors", "madang-protocol"]),
    // It sees the broker as a client does: of ours it takes the seeded numbers and the client.
    ("madang-load-tests", &["madang-actors", "madang-client"]),
    // They show what a user of the client has.
    ("madang-examples", &["madang-client"]),
    // A real client for the end-to-end tests; nothing of ours depends on it.
    ("madang-compat-rdkafka", &[]),
];

/// Licences that may come in; each crate must offer at least one of them.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "0BSD",
    "CC0-1.0",
    "Unlicense",
    "MIT-0",
    "BSL-1.0",
    "MPL-2.0",
    "MPL-2.0+",
    "Apache-2.0 WITH LLVM-exception",
    "CDLA-Permissive-2.0",
];

/// Crates that may not come in at all, and why.
const BANNED: &[(&str, &str)] = &[
    ("bincode", "unmaintained (RUSTSEC-2025-0141)"),
    ("openssl-sys", "TLS is rustls"),
    ("aws-lc-sys", "the one TLS provider is ring"),
    ("native-tls", "TLS is rustls"),
];

/// The oldest version that has no known hole, for crates that had one.
const MINIMUM_VERSIONS: &[(&str, (u64, u64, u64))] = &[
    ("bytes", (1, 11, 1)),
    ("crossbeam-channel", (0, 5, 15)),
    ("lz4_flex", (0, 12, 1)),
    ("tokio", (1, 44, 2)),
    ("rustls", (0, 23, 18)),
    ("quinn-proto", (0, 11, 15)),
];

/// What a core may not name: it has no clock, file, socket, thread or randomness, and no order but its own.
const NOT_IN_A_CORE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "std::thread",
    "std::net",
    "tokio::",
    "actix",
    "rand::",
    "thread_rng",
    "HashMap<",
    "HashSet<",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--all-features", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn packages(metadata: &Value) -> &Vec<Value> {
    metadata["packages"].as_array().expect("packages")
}

fn sources(folder: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for path in entries.map(|entry| entry.expect("a readable folder").path()) {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    found
}

/// A file's lines up to its unit tests, without comment lines.
fn code(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("a readable source file");
    let body = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    body.lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect()
}

#[test]
fn crates_import_only_what_the_table_allows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        IMPORTS.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    let metadata = metadata();
    for package in packages(&metadata).iter().filter(|package| package["source"].is_null()) {
        let name = text(package, "name");
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the import table"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = text(dependency, "name");
            let ours = to == "madang" || to.starts_with("madang-");
            let at_run_time = dependency["kind"].is_null();
            assert!(!ours || !at_run_time || allowed.contains(to), "{name} may not import {to}");
        }
    }
}

#[test]
fn cores_name_no_clock_file_socket_thread_or_randomness() {
    let shells = ["actor.rs", "descriptors.rs", "real_disk.rs", "sled_checkpoints.rs", "sync_pool.rs"];
    let mut found = Vec::new();
    for path in ["cluster/src", "storage/src"].iter().flat_map(|folder| sources(folder)) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if shells.contains(&name.as_str()) || path.components().any(|part| part.as_os_str() == "real") {
            continue;
        }
        for line in code(&path) {
            if let Some(word) = NOT_IN_A_CORE.iter().find(|word| line.contains(**word)) {
                found.push(format!("{}: {word}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "a core names what it may not:\n{}", found.join("\n"));
}

#[test]
fn no_data_is_sent_past_a_bound() {
    let folders = [
        "src",
        "actors/src",
        "cluster/src",
        "storage/src",
        "transport/src",
        "clients/src",
        "simulator/src",
        "load-tests/src",
        "examples/src",
    ];
    let mut found = Vec::new();
    for path in folders.iter().flat_map(|folder| sources(folder)) {
        for line in code(&path) {
            let supervisor = line.contains("actix::Supervisor") || line.contains("Supervised");
            // A supervisor's own queue holds one exit for each child and one call for each caller who waits.
            let supervision = path.components().any(|part| part.as_os_str() == "host");
            let unbounded = line.contains("unbounded(") || line.contains("unbounded_channel(");
            if supervisor || (unbounded && !supervision) {
                found.push(format!("{}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "unbounded, or supervised by actix:\n{}", found.join("\n"));
}

/// What DescribeConfigs says a key does is done somewhere: the tables would else go on promising what is no longer, or not yet, there.
#[test]
fn a_key_that_is_described_is_read() {
    let code: String = ["src", "cluster/src"].into_iter().flat_map(sources).flat_map(|path| code(&path)).collect();
    let table = |name: &str| std::fs::read_to_string(root().join("cluster/src/configs").join(name)).expect("a table");
    let rows = |text: &str| -> Vec<Vec<String>> {
        text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    };
    let topics = rows(&table("topic.tsv"));
    let behind: BTreeSet<&str> = topics.iter().filter(|row| row[6] != "-").map(|row| row[5].as_str()).collect();
    let unread = |row: &&Vec<String>| row[6] != "-" && !code.contains(&format!("\"{}\"", row[0]));
    assert_eq!(topics.iter().find(unread), None);
    let brokers = rows(&table("broker.tsv"));
    assert_eq!(brokers.iter().filter(|row| !behind.contains(row[0].as_str())).find(unread), None);
}

#[test]
fn no_profile_aborts_on_panic() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let aborts = manifest.lines().any(|line| !line.trim_start().starts_with('#') && line.contains("panic"));
    assert!(!aborts, "a profile names `panic`");
}

#[test]
fn files_stay_short() {
    let folders = [
        "src",
        "actors/src",
        "cluster/src",
        "storage/src",
        "transport/src",
        "clients/src",
        "protocol",
        "simulator/src",
        "load-tests/src",
        "examples/src",
    ];
    let long: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(folder))
        .filter(|path| path.file_name().is_none_or(|name| name != "tests.rs"))
        .filter_map(|path| {
            let text = std::fs::read_to_string(&path).expect("a readable source file");
            let body = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
            let (lines, excused) = (body.lines().count(), text.starts_with("//! Long because"));
            let limit = if excused { 800 } else { 500 };
            (lines > limit).then(|| format!("{}: {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "split by responsibility:\n{}", long.join("\n"));
}

#[test]
fn dependencies_are_licensed_current_and_explained() {
    let metadata = metadata();
    let mut found = Vec::new();
    for package in packages(&metadata) {
        let (name, version, licence) = (text(package, "name"), text(package, "version"), text(package, "license"));
        let offers = |licence: &str| licence.split(" OR ").any(|one| LICENCES.contains(&one.trim_matches(['(', ')'])));
        let licensed = licence.replace('/', " OR ").split(" AND ").all(|part| offers(part.trim_matches(['(', ')'])));
        if !licensed {
            found.push(format!("{name} {version}: licence {licence:?}"));
        }
        found.extend(BANNED.iter().filter(|(banned, _)| *banned == name).map(|(_, why)| format!("{name}: {why}")));
        let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
        let version: (u64, u64, u64) =
            (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if let Some((_, minimum)) = MINIMUM_VERSIONS.iter().find(|(one, minimum)| *one == name && version < *minimum) {
            found.push(format!("{name} {version:?} is older than {minimum:?}"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
