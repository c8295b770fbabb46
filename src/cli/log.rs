//! `madang log`: a partition's files, read without a broker.
//! Invariant: nothing is written.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use madang_protocol::compression::Limits;
use madang_protocol::record::{RecordSet, walk};
use madang_protocol::record_batch::{BatchError, BatchHeader, BatchView, layout};
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::format::{LOG_SUFFIX, offset_of};
use madang_storage::{Disk, DiskFile, OpenMode, RealDisk};
use serde_json::{Value, json};

use super::Failure;
use super::common::{Output, Print, print};
use super::consume::text;

/// A batch that is longer is taken for damage: no setting of a topic allows one.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// Read or check a partition's files without a broker.
#[derive(Debug, Args)]
pub(crate) struct Log {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the record batches.
    #[command(after_help = "Example:\n  madang log dump madang-data/orders-0 --records")]
    Dump(Dump),
    /// Check lengths, CRCs, offsets, leader epochs and records. Exit code 1 if something is damaged.
    #[command(after_help = "Example:\n  madang log verify madang-data/orders-0")]
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Dump {
    /// A partition's directory, or one of its .log files.
    path: PathBuf,
    /// The records too.
    #[arg(long)]
    records: bool,
    #[command(flatten)]
    print: Print,
}

#[derive(Debug, Args)]
struct Verify {
    /// A partition's directory, or one of its .log files.
    path: PathBuf,
    /// A gap between offsets is damage too. Compacted topics have them.
    #[arg(long)]
    contiguous: bool,
    #[command(flatten)]
    print: Print,
}

pub(crate) fn run(log: Log) -> Result<(), Failure> {
    match log.action {
        Action::Dump(args) => dump(&args),
        Action::Verify(args) => verify(&args),
    }
}

/// A .log file and the offset in its name.
struct Segment {
    path: PathBuf,
    base_offset: Offset,
    file: std::sync::Arc<dyn DiskFile>,
    length: u64,
}

fn segments(path: &Path) -> Result<Vec<Segment>, Failure> {
    let disk = RealDisk::new(16);
    let failed = |path: &Path, error: std::io::Error| {
        Failure::new(format!("{}: {error}", path.display()))
            .try_this("a partition's directory, as DATA/TOPIC-PARTITION")
    };
    let named = |path: &Path| path.file_name().and_then(|name| offset_of(name.to_str()?, LOG_SUFFIX));
    let paths: Vec<PathBuf> = if path.is_dir() {
        let names = disk.list(path).map_err(|error| failed(path, error))?;
        names.iter().map(|name| path.join(name)).filter(|path| named(path).is_some()).collect()
    } else {
        vec![path.to_owned()]
    };
    if paths.is_empty() {
        return Err(Failure::new(format!("no .log file in {}", path.display()))
            .try_this("a partition's directory, as DATA/TOPIC-PARTITION"));
    }
    let open = |path: PathBuf| {
        let Some(base_offset) = named(&path) else {
            let what = format!("{} is no directory, and not named as a segment is: 20 digits and .log", path.display());
            return Err(Failure::new(what).try_this("a partition's directory, as DATA/TOPIC-PARTITION"));
        };
        let file = disk.open(&path, OpenMode::Existing).map_err(|error| failed(&path, error))?;
        let length = file.len().map_err(|error| failed(&path, error))?;
        Ok(Segment { path, base_offset, file, length })
    };
    paths.into_iter().map(open).collect()
}

/// What ends the walk through a segment.
enum Trouble {
    Read(std::io::Error),
    Batch(BatchError),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Batch(error) => write!(f, "{error}"),
        }
    }
}

impl Segment {
    /// Calls `each` with the position and bytes of every batch; answers where it stopped and why.
    fn walk(
        &self,
        mut each: impl FnMut(u64, &BatchView<'_>) -> Result<(), Failure>,
    ) -> Result<(u64, Option<Trouble>), Failure> {
        let mut position = 0;
        while position < self.length {
            let bytes = match self.batch_at(position) {
                Ok(bytes) => bytes,
                Err(trouble) => return Ok((position, Some(trouble))),
            };
            match BatchView::parse(&bytes) {
                Ok(view) => each(position, &view)?,
                Err(error) => return Ok((position, Some(Trouble::Batch(error)))),
            }
            position += bytes.len() as u64;
        }
        Ok((position, None))
    }

    fn batch_at(&self, position: u64) -> Result<Vec<u8>, Trouble> {
        let mut head = vec![0; layout::RECORDS];
        let read = self.read(position, &mut head)?;
        head.truncate(read);
        let header = BatchHeader::parse(&head).map_err(Trouble::Batch)?;
        let size = header.size_in_bytes();
        let left = self.length - position;
        if size > MAX_BATCH_BYTES || size as u64 > left {
            return Err(Trouble::Batch(BatchError::Torn { needed: size as u64, present: left }));
        }
        let mut bytes = vec![0; size];
        let read = self.read(position, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn read(&self, position: u64, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(position + filled as u64, &mut buffer[filled..]).map_err(Trouble::Read)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }
}

fn dump(args: &Dump) -> Result<(), Failure> {
    let mut damaged = 0;
    for segment in segments(&args.path)? {
        if args.print.output == Output::Text {
            print(&format!("{} ({} bytes)\n", segment.path.display(), segment.length))?;
        }
        let (position, trouble) = segment.walk(|position, view| match args.print.output {
            Output::Text => print(&batch_text(position, view, args.records)),
            Output::Json => print(&format!("{}\n", batch_json(&segment.path, position, view, args.records))),
        })?;
        if let Some(trouble) = trouble {
            damaged += 1;
            eprintln!("{} at byte {position}: {trouble}", segment.path.display());
        }
    }
    outcome(damaged)
}

fn outcome(damaged: usize) -> Result<(), Failure> {
    if damaged == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("{damaged} problems found"))
        .try_this("a torn last batch is cut off when the broker starts; other damage needs a copy of the partition"))
}

fn codec(header: &BatchHeader) -> String {
    header.codec().map_or_else(|error| error.to_string(), |codec| codec.to_string())
}

fn batch_text(position: u64, view: &BatchView<'_>, records: bool) -> String {
    let header = &view.header;
    let mut line = format!(
        "  byte {position}: offsets {}..={} records {} epoch {} codec {} size {} max timestamp {}",
        header.base_offset,
        header.last_offset(),
        header.record_count,
        header.partition_leader_epoch,
        codec(header),
        view.bytes.len(),
        header.max_timestamp,
    );
    if header.has_producer_id() {
        line.push_str(&format!(
            " producer {} epoch {} sequence {}",
            header.producer_id, header.producer_epoch, header.base_sequence
        ));
    }
    for (flag, name) in [(header.is_transactional(), " transactional"), (header.is_control(), " control")] {
        line.push_str(if flag { name } else { "" });
    }
    if let Err(error) = view.verify_crc() {
        line.push_str(&format!(" DAMAGED: {error}"));
    }
    line.push('\n');
    if records {
        for record in records_of(view) {
            line.push_str(&match record {
                Ok(record) => format!(
                    "    offset {} timestamp {} key {} value {}\n",
                    record["offset"], record["timestamp"], record["key"], record["value"]
                ),
                Err(error) => format!("    DAMAGED: {error}\n"),
            });
        }
    }
    line
}

fn records_of(view: &BatchView<'_>) -> Vec<Result<Value, BatchError>> {
    let set = match RecordSet::of(view, &Limits::default()) {
        Ok(set) => set,
        Err(error) => return vec![Err(error)],
    };
    let to_json = |record: madang_protocol::record::Record<'_>| {
        json!({
            "offset": record.offset(&view.header).0,
            "timestamp": record.timestamp(&view.header),
            "key": text(record.key),
            "value": text(record.value),
            "headers": record.headers.map(|(name, value)| json!({ "name": text(Some(name)), "value": text(value) })).collect::<Vec<_>>(),
        })
    };
    set.iter().map(|record| record.map(to_json)).collect()
}

fn batch_json(path: &Path, position: u64, view: &BatchView<'_>, records: bool) -> Value {
    let header = &view.header;
    let mut value = json!({
        "file": path.display().to_string(),
        "position": position,
        "size": view.bytes.len(),
        "base_offset": header.base_offset.0,
        "last_offset": header.last_offset().0,
        "records": header.record_count,
        "leader_epoch": header.partition_leader_epoch.0,
        "codec": codec(header),
        "max_timestamp": header.max_timestamp,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "transactional": header.is_transactional(),
        "control": header.is_control(),
        "crc_valid": view.verify_crc().is_ok(),
    });
    if records {
        value["content"] = records_of(view)
            .into_iter()
            .map(|record| record.unwrap_or_else(|error| json!({ "damaged": error.to_string() })))
            .collect();
    }
    value
}

/// What was found, over all segments.
struct Findings {
    batches: u64,
    records: u64,
    bytes: u64,
    gaps: u64,
    next_offset: Option<Offset>,
    leader_epoch: LeaderEpoch,
    problems: Vec<String>,
}

fn verify(args: &Verify) -> Result<(), Failure> {
    let segments = segments(&args.path)?;
    let mut found = Findings {
        batches: 0,
        records: 0,
        bytes: 0,
        gaps: 0,
        next_offset: None,
        leader_epoch: LeaderEpoch::NONE,
        problems: Vec::new(),
    };
    for segment in &segments {
        let path = segment.path.display();
        if found.next_offset.is_some_and(|next| segment.base_offset < next) {
            found.problems.push(format!("{path}: begins before the end of the segment before it"));
        }
        found.next_offset = found.next_offset.or(Some(segment.base_offset));
        let (position, trouble) = segment.walk(|position, view| {
            for problem in found.batch(view, args.contiguous) {
                found.problems.push(format!("{path} at byte {position}: {problem}"));
            }
            Ok(())
        })?;
        found.bytes += position;
        if let Some(trouble) = trouble {
            found.problems.push(format!("{path} at byte {position}: {trouble}"));
        }
    }
    report(args, &segments, &found)?;
    outcome(found.problems.len())
}

impl Findings {
    /// Counts a batch and says what is wrong with it.
    fn batch(&mut self, view: &BatchView<'_>, contiguous: bool) -> Vec<String> {
        let header = &view.header;
        let mut problems = Vec::new();
        self.batches += 1;
        self.records += u64::try_from(header.record_count).unwrap_or(0);
        if let Err(error) = view.verify_crc() {
            problems.push(error.to_string());
        } else {
            problems.extend(records_problem(view));
        }
        if let Some(next) = self.next_offset.filter(|next| header.base_offset < *next) {
            problems.push(format!("offset {} where at least {next} is due", header.base_offset));
        }
        if let Some(next) = self.next_offset.filter(|next| header.base_offset > *next) {
            self.gaps += 1;
            if contiguous {
                problems.push(format!("offsets {next} to {} are missing", header.base_offset + -1));
            }
        }
        if header.partition_leader_epoch < self.leader_epoch {
            problems.push(format!(
                "leader epoch {} after leader epoch {}",
                header.partition_leader_epoch, self.leader_epoch
            ));
        }
        self.leader_epoch = self.leader_epoch.max(header.partition_leader_epoch);
        self.next_offset = self.next_offset.max(Some(header.next_offset()));
        problems
    }
}

/// Whether the records are as many and as well formed as the header says.
fn records_problem(view: &BatchView<'_>) -> Option<String> {
    let header = &view.header;
    let mut last_delta = -1;
    let mut disorder = None;
    let outcome = walk(view, &Limits::default(), |record| {
        if record.offset_delta <= last_delta || record.offset_delta > header.last_offset_delta {
            disorder = disorder.or(Some(record.index));
        }
        last_delta = record.offset_delta;
    });
    match (outcome, disorder) {
        (Err(error), _) => Some(error.to_string()),
        (Ok(()), Some(index)) => {
            Some(format!("record {index}: its offset does not rise, or is above the batch's last"))
        }
        (Ok(()), None) => None,
    }
}

fn report(args: &Verify, segments: &[Segment], found: &Findings) -> Result<(), Failure> {
    let next = found.next_offset.unwrap_or(Offset::ZERO);
    let first = segments.first().map_or(Offset::ZERO, |segment| segment.base_offset);
    match args.print.output {
        Output::Text => {
            let mut text = format!(
                "{} segments, {} batches, {} records, {} bytes, offsets {first} to {next}, {} gaps, leader epoch {}\n",
                segments.len(),
                found.batches,
                found.records,
                found.bytes,
                found.gaps,
                found.leader_epoch
            );
            for problem in &found.problems {
                text.push_str(&format!("DAMAGED {problem}\n"));
            }
            if found.problems.is_empty() {
                text.push_str("no damage\n");
            }
            print(&text)
        }
        Output::Json => super::common::print_json(&json!({
            "segments": segments.len(),
            "batches": found.batches,
            "records": found.records,
            "bytes": found.bytes,
            "gaps": found.gaps,
            "first_offset": first.0,
            "next_offset": next.0,
            "leader_epoch": found.leader_epoch.0,
            "problems": found.problems,
        })),
    }
}
