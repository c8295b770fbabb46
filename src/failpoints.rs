//! Plants faults in a running node, for the sweep of panics: each line of the file that MADANG_FAILPOINTS names, as the file grows.
//! A line is `ACTOR KIND NTH ACTION`: two patterns as `madang_actors::failpoint::plant` takes them, a count from 1, and `panic`, `stop`,
//! `hang` or `drop`. Invariant: without the feature `failpoints` this file is not compiled.

use std::io::{BufRead, BufReader, Error, ErrorKind, Result};
use std::path::PathBuf;
use std::time::Duration;

use madang_actors::failpoint::{FailAction, FailPoint, plant};

/// Names the file.
const VARIABLE: &str = "MADANG_FAILPOINTS";
/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_millis(2);

/// Follows the file for as long as the process lives; does nothing without the variable.
///
/// # Errors
/// The file is not there, or the thread cannot be started.
pub(crate) fn follow() -> Result<()> {
    let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return Ok(()) };
    let mut lines = BufReader::new(std::fs::File::open(path)?);
    let follower = move || {
        let mut planted: Vec<FailPoint> = Vec::new();
        let mut line = String::new();
        loop {
            match lines.read_line(&mut line) {
                Ok(_) if line.ends_with('\n') => {
                    match parse(&line) {
                        Ok(point) => planted.push(point),
                        Err(error) => tracing::error!(%error, "fail point"),
                    }
                    line.clear();
                }
                Ok(_) => std::thread::sleep(INTERVAL),
                Err(error) => return tracing::error!(%error, "fail points are followed no longer"),
            }
        }
    };
    std::thread::Builder::new().name("failpoints".to_owned()).spawn(follower)?;
    Ok(())
}

fn parse(line: &str) -> Result<FailPoint> {
    let wrong = || Error::new(ErrorKind::InvalidData, format!("not ACTOR KIND NTH ACTION: {}", line.trim()));
    let [actor, kind, nth, action] =
        line.split_whitespace().collect::<Vec<_>>().try_into().map_err(|_: Vec<_>| wrong())?;
    let action = match action {
        "panic" => FailAction::Panic,
        "stop" => FailAction::Stop,
        "hang" => FailAction::Hang,
        "drop" => FailAction::DropMessage,
        _ => return Err(wrong()),
    };
    let point = plant(actor, kind, nth.parse().map_err(|_| wrong())?, action);
    tracing::info!(actor, kind, nth, ?action, "planted");
    Ok(point)
}
