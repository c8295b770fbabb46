//! The scenarios that come with the program, and those in files.
//! Invariant: the list is that of the folder `scenarios`, which a test holds.

use std::path::Path;

macro_rules! named {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../scenarios/", $name, ".toml")))),*]
    };
}

/// Name and text.
pub(crate) const SCENARIOS: &[(&str, &str)] = named![
    "one-hot-partition",
    "hundred-partitions",
    "ten-thousand-partitions",
    "many-small-producers",
    "small-requests-saturated",
    "large-records",
    "tail-readers",
    "tail-readers-fsync",
    "catch-up-warm",
    "catch-up-cold",
    "consume-warm",
    "consume-small-fetches",
    "fan-out",
    "durable-small-batches",
    "rebalance-storm",
    "connection-storm",
    "idle-cluster",
    "replicated",
];

/// The text of one that comes with the program, or of a file, with its name.
///
/// # Errors
/// There is none; says what to try.
pub(crate) fn find(name: &str) -> Result<(String, String), String> {
    if let Some((name, text)) = SCENARIOS.iter().find(|(known, _)| *known == name) {
        return Ok(((*name).to_owned(), (*text).to_owned()));
    }
    let path = Path::new(name);
    if path.extension().is_none_or(|extension| extension != "toml") {
        return Err(format!("no scenario is called {name}; `madang-bench list` names them, or give a file *.toml"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("scenario");
    Ok((stem.to_owned(), text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_is_that_of_the_folder() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios")).expect("the folder");
        let files: BTreeSet<String> =
            folder.filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned())).collect();
        let listed: BTreeSet<String> = SCENARIOS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(listed, files);
    }
}
