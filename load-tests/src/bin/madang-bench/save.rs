//! Runs on disk: a folder for each, with JSON, a page and a table; and what is made of two of them.
//! Invariant: nothing that is there is written over, but the pages of `report`.

use std::fs;
use std::path::{Path, PathBuf};

use madang_load_tests::bench::pairs::ratios;
use madang_load_tests::bench::report::Report;
use madang_load_tests::bench::{html, table};

const REPORT: &str = "report.json";
const PAGE: &str = "report.html";
const TABLE: &str = "report.txt";

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A new folder for a run, named by scenario, side and time.
fn folder(out: &Path, name: &str, started_s: u64) -> Result<PathBuf, String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(out).map_err(|error| failed(out, error))?;
    let plain: String =
        name.chars().map(|one| if one.is_ascii_alphanumeric() || one == '-' { one } else { '-' }).collect();
    let mut attempt = 0;
    loop {
        let suffix = if attempt == 0 { String::new() } else { format!("-{attempt}") };
        let path = out.join(format!("{started_s}-{plain}{suffix}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => attempt += 1,
            Err(error) => return Err(failed(&path, error)),
        }
    }
}

/// Saves runs of one or two sides, a pair beside a pair; returns their folder.
///
/// # Errors
/// A text for a person.
pub(crate) fn save(out: &Path, a: &[Report], b: &[Report]) -> Result<PathBuf, String> {
    let first = a.first().ok_or("nothing was run")?;
    let sides = b.first().map_or(first.side.clone(), |other| format!("{}-{}", first.side, other.side));
    let folder = folder(out, &format!("{}-{sides}", first.name), first.started_s)?;
    let saved = serde_json::to_string(&[a, b]).map_err(|error| error.to_string())?;
    write(&folder.join(REPORT), &saved)?;
    render(&folder, a, b)?;
    Ok(folder)
}

/// The table of runs of one or two sides.
pub(crate) fn text(a: &[Report], b: &[Report]) -> String {
    match (a, b) {
        (runs, []) => runs.iter().map(table::run).collect::<Vec<_>>().join("\n"),
        ([.., last_a], [.., last_b]) => format!(
            "the last pair:\n\n{}\n{}\n{}{}",
            table::run(last_a),
            table::run(last_b),
            table::ratios(&last_a.side, &last_b.side, &ratios(a, b)),
            table::doubts(a.iter().chain(b)),
        ),
        ([], _) => String::new(),
    }
}

fn render(folder: &Path, a: &[Report], b: &[Report]) -> Result<(), String> {
    let page = match (a, b) {
        ([.., last], []) => html::run(last),
        _ => html::pairs(a, b, &ratios(a, b)),
    };
    write(&folder.join(PAGE), &page)?;
    write(&folder.join(TABLE), &text(a, b))
}

/// What was saved in a folder, or in a file of JSON.
///
/// # Errors
/// A text for a person.
pub(crate) fn load(path: &Path) -> Result<(Vec<Report>, Vec<Report>), String> {
    let path = if path.is_dir() { path.join(REPORT) } else { path.to_owned() };
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let [a, b]: [Vec<Report>; 2] = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    Ok((a, b))
}

/// Makes page and table of a folder anew, and returns the table.
///
/// # Errors
/// A text for a person.
pub(crate) fn again(folder: &Path) -> Result<String, String> {
    let (a, b) = load(folder)?;
    render(folder, &a, &b)?;
    Ok(text(&a, &b))
}

/// Two saved runs side by side, the first side of each: the ratios, and a page in `out`.
///
/// # Errors
/// A text for a person.
pub(crate) fn compare(a: &Path, b: &Path, out: &Path) -> Result<String, String> {
    let name = |path: &Path, report: &mut Report| {
        let folder = path.file_name().and_then(|name| name.to_str()).unwrap_or("run");
        report.side = format!("{} {folder}", report.side);
    };
    let (mut first, mut second) = (load(a)?.0, load(b)?.0);
    if first.is_empty() || second.is_empty() {
        return Err("nothing to compare".to_owned());
    }
    if first[0].side == second[0].side {
        first.iter_mut().for_each(|report| name(a, report));
        second.iter_mut().for_each(|report| name(b, report));
    }
    let mut text = table::ratios("A", "B", &ratios(&first, &second));
    text.insert_str(
        0,
        &format!("A: {} on {}\nB: {} on {}\n", first[0].name, first[0].side, second[0].name, second[0].side),
    );
    if first[0].scenario != second[0].scenario {
        text.insert_str(0, "the two scenarios are not the same\n");
    }
    text.push_str(&table::doubts(first.iter().chain(&second)));
    let (a, b) = (first.len(), second.len());
    if a != b {
        text.push_str(&format!("A has {a} runs and B has {b}: what is beyond the shorter has no pair\n"));
    }
    fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
    let page = out.join(format!("compare-{}-{}.html", first[0].run, second[0].run));
    write(&page, &html::pairs(&first, &second, &ratios(&first, &second)))?;
    text.push_str(&format!("page: {}\n", page.display()));
    Ok(text)
}
