//! One side of an exchange of random messages with another codec; `clients/compat/oracle-java` is the other side.
//!
//! `codec_oracle generate SEED COUNT` prints `NAME VERSION HEX JSON`, COUNT messages of every version, as our codec encodes them.
//! `codec_oracle damage SEED COUNT` prints `NAME VERSION HEX HEX`: damaged messages that our codec still takes, and what it makes of them.
//! `codec_oracle errors` prints `NUMBER NAME RETRIABLE` of every error code.
//! `codec_oracle check` reads `NAME VERSION HEX` and exits with 1 unless our codec decodes and encodes each to the same bytes.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufWriter, Write};
use std::process::ExitCode;

use bytes::Bytes;
use madang_protocol::ErrorCode;

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/messages/table.rs"]
mod table;
#[path = "../tests/messages/values.rs"]
mod values;

use values::{Random, Version, encode, random_struct, to_json};

fn main() -> Result<ExitCode, String> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    match arguments[..] {
        ["generate", seed, count] => print_messages(number(seed)?, number(count)?, intact),
        ["damage", seed, count] => print_messages(number(seed)?, number(count)?, damaged),
        ["errors"] => {
            for error in ErrorCode::ALL {
                println!("{} {} {}", error.code(), error.name(), error.is_retriable());
            }
            Ok(ExitCode::SUCCESS)
        }
        ["check"] => check(),
        _ => Err("usage: codec_oracle generate SEED COUNT | damage SEED COUNT | errors | check".to_owned()),
    }
}

/// What is printed of a message behind its name and version, or nothing.
type Print = fn(&table::Row, Version, &mut Random) -> Result<Option<String>, String>;

fn intact(row: &table::Row, version: Version, random: &mut Random) -> Result<Option<String>, String> {
    let value = random_struct(row.schema, version, random);
    let mut bytes = Vec::new();
    encode(&value, version, &mut bytes);
    let ours = (row.recode)(&bytes.into(), version.number)?;
    Ok(Some(format!("{} {}", to_hex(&ours), to_json(&value))))
}

fn damaged(row: &table::Row, version: Version, random: &mut Random) -> Result<Option<String>, String> {
    let mut bytes = Vec::new();
    encode(&random_struct(row.schema, version, random), version, &mut bytes);
    if !bytes.is_empty() {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = if random.one_in(2) { random.next() as u8 } else { bytes[at] ^ 1 << random.below(8) };
    }
    let bytes = Bytes::from(bytes);
    // What our codec refuses is not printed: it is stricter than Kafka's with strings, negative lengths and the sizes of tagged fields.
    let taken = (row.recode)(&bytes, version.number).ok();
    Ok(taken.map(|ours| format!("{} {}", to_hex(&bytes), to_hex(&ours))))
}

fn print_messages(seed: u64, count: u64, print: Print) -> Result<ExitCode, String> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut random = Random(seed);
    for row in table::all() {
        for number in row.versions.min..=row.versions.max {
            let version = Version { number, flexible: row.flexible.contains(number) };
            for _ in 0..count {
                if let Some(printed) = print(&row, version, &mut random)? {
                    writeln!(out, "{} {number} {printed}", row.name()).map_err(|error| error.to_string())?;
                }
            }
        }
    }
    out.flush().map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn check() -> Result<ExitCode, String> {
    let rows = table::all();
    let (mut differences, mut compared) = (0, 0);
    let mut versions = BTreeSet::new();
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let parts: Vec<_> = line.split(' ').collect();
        let [name, version, hex] = parts[..] else { return Err(format!("not NAME VERSION HEX: {line}")) };
        let row = rows.iter().find(|row| row.name() == name).ok_or_else(|| format!("no message {name}"))?;
        let version = version.parse().map_err(|error| format!("{version}: {error}"))?;
        let bytes = from_hex(hex).ok_or_else(|| format!("not hexadecimal: {hex}"))?;
        let ours = (row.recode)(&bytes, version);
        if ours.as_ref() != Ok(&bytes) {
            differences += 1;
            println!("{name} v{version}: {hex} became {:?}", ours.map(|bytes| to_hex(&bytes)));
        }
        compared += 1;
        versions.insert((name.to_owned(), version));
    }
    let expected: usize = rows.iter().map(|row| (row.versions.min..=row.versions.max).count()).sum();
    println!("{compared} messages, {} of {expected} versions compared, {differences} differences", versions.len());
    Ok(if differences == 0 && versions.len() == expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Bytes> {
    let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect::<Vec<_>>().into())
}
