//! Runs and ratios as text for a terminal.
//! Invariant: a run that is wrong, or whose generator was the bound, says so in its first lines.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::measure::{Flow, Latency};
use super::pairs::{INTERVAL, Ratio};
use super::report::{BrokerUse, Report};
use super::verify::Verdict;

const MIB: f64 = (1 << 20) as f64;

/// A number with the digits that matter.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}

/// A latency in milliseconds.
#[must_use]
pub fn milliseconds(us: u64) -> String {
    number(us as f64 / 1000.0)
}

/// What is to be known before any number.
#[must_use]
pub fn warnings(report: &Report) -> Vec<String> {
    let mut all = Vec::new();
    if !report.verdict.is_sound() {
        all.push("WRONG: what was read is not what was written; see the verification".to_owned());
    }
    if report.is_client_bound() {
        let share = report.generator.share * 100.0;
        all.push(format!("the client is the bound: the generator used {share:.0} % of its cores"));
    }
    let due = report.scenario.records_per_second().unwrap_or(0) as f64 * report.window_s;
    if report.backlog as f64 > due / 100.0 {
        all.push(format!("the schedule was not kept: {} records were due and not sent at the end", report.backlog));
    }
    if let Some(others) = report.broker.as_ref().and_then(|broker| broker.others).filter(|others| *others > 0.05) {
        all.push(format!("disturbed: others used {:.0} % of the broker's cores", others * 100.0));
    }
    all
}

/// A run.
#[must_use]
pub fn run(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |left: &str, right: &str| {
        let _ = writeln!(text, "{left:<28}{right}");
    };
    line("scenario", &format!("{}: {}", report.name, report.scenario.purpose));
    line("broker", &format!("{} ({})", report.side, report.promise));
    let machine = &report.machine;
    line(
        "machine",
        &format!("{}, {} cores, Linux {}, load {:.2} before", machine.cpu, machine.cores, machine.kernel, machine.load),
    );
    line(
        "generator",
        &format!(
            "{}, {:.0} % of its cores{}",
            report.client,
            report.generator.share * 100.0,
            cores(&report.generator.cores)
        ),
    );
    line("window", &format!("{} s{}", number(report.window_s), load(report)));
    for warning in warnings(report) {
        line("!", &warning);
    }
    for (name, flow) in [("produce", &report.produce), ("consume", &report.consume), ("connect", &report.connect)] {
        if let Some(flow) = flow {
            flow_lines(name, flow, report.window_s, &mut line);
        }
    }
    if let Some(broker) = &report.broker {
        broker_lines(report, broker, &mut line);
    }
    verdict_lines(&report.verdict, &mut line);
    for note in &report.notes {
        line("note", note);
    }
    text
}

fn load(report: &Report) -> String {
    match report.scenario.records_per_second() {
        _ if report.scenario.producers.count == 0 => String::new(),
        Some(rate) => format!(", open loop: {rate} records/s on schedule"),
        None => format!(
            ", closed loop: at most {} records in flight for each of {} producers",
            report.scenario.producers.in_flight, report.scenario.producers.count
        ),
    }
}

fn cores(cores: &[usize]) -> String {
    let names: Vec<String> = cores.iter().map(usize::to_string).collect();
    if names.is_empty() { ", not kept to cores".to_owned() } else { format!(", kept to cores {}", names.join(",")) }
}

fn percentiles(latency: &Latency) -> String {
    let one = |(at, us): &(f64, u64)| {
        let name = if *at >= 100.0 { "max".to_owned() } else { format!("p{at}") };
        format!("{name} {}", milliseconds(*us))
    };
    latency.percentiles.iter().map(one).collect::<Vec<_>>().join("  ")
}

fn flow_lines(name: &str, flow: &Flow, window_s: f64, line: &mut impl FnMut(&str, &str)) {
    let bytes =
        if flow.bytes > 0 { format!(", {} MiB/s", number(flow.mib_per_second(window_s))) } else { String::new() };
    let errors = if flow.errors > 0 { format!(", {} FAILED", flow.errors) } else { String::new() };
    line(name, &format!("{} in the window, {}/s{bytes}{errors}", flow.count, number(flow.per_second(window_s))));
    if let Some(latency) = &flow.latency {
        line("  latency, ms", &percentiles(latency));
    }
    if let Some(late) = &flow.lateness {
        line("  of it the generator's, ms", &percentiles(late));
    }
}

fn broker_lines(report: &Report, broker: &BrokerUse, line: &mut impl FnMut(&str, &str)) {
    let usage = &broker.usage;
    let metrics = report.metrics();
    let cost = |name: &str, unit: &str| {
        metrics.iter().find(|metric| metric.name == name).map(|metric| format!(", {} {unit}", number(metric.value)))
    };
    let costs: String = [
        cost("broker CPU per GiB", "s/GiB"),
        cost("broker CPU per record", "us a record"),
        cost("broker CPU per connection", "us a connection"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let others = broker.others.map_or(String::new(), |others| format!(", others {:.0} %", others * 100.0));
    line(
        "broker CPU",
        &format!(
            "{} s{costs}; {:.0} % of its cores{others}{}",
            number(usage.cpu_s),
            broker.share * 100.0,
            cores(&broker.cores)
        ),
    );
    line(
        "broker memory",
        &format!(
            "{} MiB before the load, {} MiB at most, {} MiB at the end",
            number(broker.resident_idle_bytes as f64 / MIB),
            number(broker.resident_peak_bytes as f64 / MIB),
            number(usage.resident_bytes as f64 / MIB)
        ),
    );
    line(
        "broker disk",
        &format!(
            "{} MiB written, {} MiB read",
            number(usage.written_bytes as f64 / MIB),
            number(usage.read_bytes as f64 / MIB)
        ),
    );
    let flushes = broker.disk_flushes.map_or("not counted by this kernel".to_owned(), |flushes| {
        format!("{flushes} flushes of the whole disk, others' too")
    });
    line("syncs", &flushes);
    line(
        "context switches",
        &format!(
            "{} voluntary, {} involuntary; {} threads, {} descriptors",
            usage.voluntary_switches, usage.involuntary_switches, usage.threads, usage.descriptors
        ),
    );
}

fn verdict_lines(verdict: &Verdict, line: &mut impl FnMut(&str, &str)) {
    if verdict.sent == 0 {
        return line("verification", "nothing was written");
    }
    line(
        "verification",
        &format!(
            "{}: {} sent, {} acknowledged",
            if verdict.is_sound() { "sound" } else { "WRONG" },
            verdict.sent,
            verdict.acknowledged
        ),
    );
    // Groups that agree are one line.
    let mut rest = verdict.groups.as_slice();
    while let Some((name, counts)) = rest.first() {
        let same = rest.iter().take_while(|(_, other)| other == counts).count();
        let name = if same > 1 { format!("  {name} and {} more", same - 1) } else { format!("  {name}") };
        line(
            &name,
            &format!(
                "{} read, {} lost, {} out of order, {} corrupt, {} misplaced, {} duplicates",
                counts.read, counts.lost, counts.reordered, counts.corrupt, counts.misplaced, counts.duplicates
            ),
        );
        rest = &rest[same..];
    }
}

/// How many of the runs are to be doubted, and why.
#[must_use]
pub fn doubts<'a>(runs: impl Iterator<Item = &'a Report>) -> String {
    let mut all = 0;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for report in runs {
        all += 1;
        for warning in warnings(report) {
            let kind = warning.split(':').next().unwrap_or_default();
            *counts.entry(format!("{}, {kind}", report.side)).or_default() += 1;
        }
    }
    counts.into_iter().map(|(kind, count)| format!("! {count} of {all} runs: {kind}\n")).collect()
}

/// Ratios of two sides by their names.
#[must_use]
pub fn ratios(a: &str, b: &str, all: &[Ratio]) -> String {
    let pairs = all.first().map_or(0, |ratio| ratio.pairs.len());
    let mut text = String::new();
    let _ = writeln!(text, "{pairs} pairs; {INTERVAL}");
    let _ = writeln!(text, "{:<28}{a:>12}{b:>12}  {a} / {b}", "");
    for ratio in all {
        let name = if ratio.unit.is_empty() { ratio.name.clone() } else { format!("{}, {}", ratio.name, ratio.unit) };
        let (low, high) = ratio.interval();
        let spread = format!("{} ({} to {})", number(ratio.median()), number(low), number(high));
        let _ =
            writeln!(text, "{name:<28}{:>12}{:>12}  {spread:<24}{}", number(ratio.a), number(ratio.b), ratio.outcome());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::super::verify::GroupCounts;
    use super::*;

    #[test]
    fn a_sound_run_has_no_warning_and_all_its_numbers() {
        let text = run(&report("madang", 10.0));
        for part in ["102 MiB/s", "2.00 s/GiB", "p99 9.00", "40.0 MiB at most", "closed loop: at most 10000 records"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("\n!"), "{text}");
    }

    #[test]
    fn a_wrong_run_and_one_that_the_client_bounds_say_so() {
        let mut report = report("madang", 10.0);
        report.generator.share = 0.97;
        report.backlog = 5_000;
        report.verdict.sent = 10;
        report.verdict.groups.push(("check".to_owned(), GroupCounts { lost: 3, ..GroupCounts::default() }));
        let text = run(&report);
        for part in ["WRONG", "3 lost", "the client is the bound", "the schedule was not kept"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn runs_that_are_to_be_doubted_are_counted_by_side_and_reason() {
        let (sound, mut bound) = (report("madang", 10.0), report("kafka", 10.0));
        bound.generator.share = 0.97;
        let text = doubts([&sound, &bound, &bound].into_iter());
        assert_eq!(text, "! 2 of 3 runs: kafka, the client is the bound\n");
    }

    #[test]
    fn groups_that_agree_are_one_line() {
        let mut report = report("madang", 10.0);
        report.verdict.sent = 1;
        report.verdict.groups = (0..10).map(|at| (format!("group {at}"), GroupCounts::default())).collect();
        assert!(run(&report).contains("group 0 and 9 more"));
    }

    #[test]
    fn ratios_name_their_interval() {
        let pairs = [report("madang", 10.0), report("madang", 10.0)];
        let others = [report("kafka", 20.0), report("kafka", 40.0)];
        let text = ratios("madang", "kafka", &super::super::pairs::ratios(&pairs, &others));
        assert!(text.contains("lowest and the highest") && text.contains("3.00 (2.00 to 4.00)"), "{text}");
    }
}
