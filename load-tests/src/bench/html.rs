//! Runs as one page that needs nothing else: inline style, inline SVG.
//! Invariant: every text from outside is escaped; the page loads nothing.

use std::fmt::Write;

use super::measure::PERCENTILES;
use super::pairs::{INTERVAL, Ratio};
use super::report::{Report, Sample};
use super::table::{self, number};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 14.0;
const COLOURS: [&str; 6] = ["#1f6feb", "#d1495b", "#2e8b57", "#b8860b", "#7b4fb5", "#555555"];
const STYLE: &str = "body{font:14px/1.45 system-ui,sans-serif;max-width:1120px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left;border-bottom:1px solid #eee}\
    pre{background:#f6f6f6;padding:.8em;overflow-x:auto}.charts{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0}\
    figcaption{font-weight:600}.warning{color:#b00020;font-weight:600}svg text{font:11px system-ui,sans-serif;fill:#555}";

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What stands below the ends of a chart over time.
fn seconds(first: f64, last: f64) -> Vec<(f64, String)> {
    [first, last].map(|at| (at, format!("{} s", number(at)))).to_vec()
}

/// What stands below a chart of percentiles, which are as far apart as they are in the list.
fn names_of_percentiles(_: f64, _: f64) -> Vec<(f64, String)> {
    let name = |(at, percentile): (u8, &f64)| {
        (f64::from(at), if *percentile >= 100.0 { "max".to_owned() } else { format!("p{percentile}") })
    };
    (0..).zip(&PERCENTILES).map(name).collect()
}

/// Lines over time or percentiles, from 0 to their maximum. `labels` says what stands where below it.
fn chart(title: &str, lines: &[Line], labels: fn(f64, f64) -> Vec<(f64, String)>) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let (first, last) =
        (all().map(|point| point.0).fold(f64::INFINITY, f64::min), all().map(|point| point.0).fold(0.0, f64::max));
    let most = all().map(|point| point.1).fold(0.0, f64::max);
    if all().count() == 0 || most <= 0.0 {
        return String::new();
    }
    let span = if last > first { last - first } else { 1.0 };
    let x = |at: f64| LEFT + (at - first) / span * (WIDTH - LEFT - 10.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP);
    let mut svg = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" role=\"img\">",
        escaped(title)
    );
    for part in [0.0, 0.5, 1.0] {
        let (value, at) = (most * part, y(most * part));
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            number(value)
        );
    }
    for (at, label) in labels(first, last) {
        let place = x(at);
        let anchor = if at <= first {
            "start"
        } else if at >= last {
            "end"
        } else {
            "middle"
        };
        let _ = write!(
            svg,
            "<text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - 6.0,
            escaped(&label)
        );
    }
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> =
            line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        );
    }
    svg.push_str("</svg><br>");
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let _ = write!(svg, "<span style=\"color:{colour}\">&#9632; {}</span> ", escaped(&line.name));
    }
    svg.push_str("</figure>");
    svg
}

fn over_time(report: &Report, name: &str, of: impl Fn(&Sample) -> f64) -> Line {
    Line { name: name.to_owned(), points: report.series.iter().map(|sample| (sample.at_s, of(sample))).collect() }
}

type Of = fn(&Sample) -> f64;

fn per_second(sample: &Sample, bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20) / sample.over_s.max(1e-9)
}

fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// What is drawn over time: title, and the lines of each run.
const CHARTS: [(&str, &[(&str, Of)]); 7] = [
    (
        "Throughput, MiB/s",
        &[
            ("produce", |sample| per_second(sample, sample.produce.bytes)),
            ("consume", |sample| per_second(sample, sample.consume.bytes)),
        ],
    ),
    (
        "Latency of a produce, ms",
        &[
            ("p50", |sample| milliseconds(sample.produce.p50_us)),
            ("p99", |sample| milliseconds(sample.produce.p99_us)),
            ("max", |sample| milliseconds(sample.produce.max_us)),
        ],
    ),
    (
        "Latency end to end, ms",
        &[
            ("p50", |sample| milliseconds(sample.consume.p50_us)),
            ("p99", |sample| milliseconds(sample.consume.p99_us)),
            ("max", |sample| milliseconds(sample.consume.max_us)),
        ],
    ),
    (
        "Latency of a connection, ms",
        &[("p50", |sample| milliseconds(sample.connect.p50_us)), ("p99", |sample| milliseconds(sample.connect.p99_us))],
    ),
    ("Cores used", &[("broker", |sample| sample.broker_cores), ("generator", |sample| sample.generator_cores)]),
    ("Resident memory of the broker, MiB", &[("resident", |sample| sample.resident_bytes as f64 / f64::from(1 << 20))]),
    ("Open files and sockets of the broker", &[("descriptors", |sample| sample.descriptors as f64)]),
];

fn charts(runs: &[&Report]) -> String {
    let mut html = "<div class=\"charts\">".to_owned();
    for (title, parts) in CHARTS {
        let line = |report: &&Report, (name, of): &(&str, Of)| {
            let name = if runs.len() > 1 { format!("{} {name}", report.side) } else { (*name).to_owned() };
            over_time(report, &name, of)
        };
        let lines = runs.iter().flat_map(|report| parts.iter().map(move |part| line(report, part)));
        // A line of zeros is of what did not happen.
        let lines: Vec<Line> = lines.filter(|line| line.points.iter().any(|point| point.1 > 0.0)).collect();
        html.push_str(&chart(title, &lines, seconds));
    }
    for (title, flow) in [("Percentiles of a produce, ms", 0), ("Percentiles end to end, ms", 1)] {
        let lines = runs.iter().filter_map(|report| {
            let latency = [&report.produce, &report.consume][flow].as_ref()?.latency.as_ref()?;
            let points =
                latency.percentiles.iter().zip(0_u8..).map(|((_, us), step)| (f64::from(step), milliseconds(*us)));
            Some(Line { name: report.side.clone(), points: points.collect() })
        });
        html.push_str(&chart(title, &lines.collect::<Vec<_>>(), names_of_percentiles));
    }
    html.push_str("</div>");
    html
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{}</title><style>{STYLE}</style><body>{body}</body></html>\n",
        escaped(title)
    )
}

fn warnings(report: &Report) -> String {
    let warning = |text: String| format!("<p class=\"warning\">{}: {}</p>", escaped(&report.side), escaped(&text));
    table::warnings(report).into_iter().map(warning).collect()
}

/// A run.
#[must_use]
pub fn run(report: &Report) -> String {
    let title = format!("{} on {}", report.name, report.side);
    let body = format!(
        "<h1>{}</h1><p>{}</p>{}<pre>{}</pre>{}<h2>Scenario</h2><pre>{}</pre>",
        escaped(&title),
        escaped(&report.scenario.purpose),
        warnings(report),
        escaped(&table::run(report)),
        charts(&[report]),
        escaped(&serde_json::to_string_pretty(&report.scenario).unwrap_or_default()),
    );
    page(&title, &body)
}

/// Pairs of runs with their ratios; the charts are of the last pair.
#[must_use]
pub fn pairs(a: &[Report], b: &[Report], ratios: &[Ratio]) -> String {
    let (Some(last_a), Some(last_b)) = (a.last(), b.last()) else { return page("no runs", "<p>no runs</p>") };
    let title = format!("{}: {} beside {}", last_a.name, last_a.side, last_b.side);
    let mut body = format!("<h1>{}</h1><p>{}</p>", escaped(&title), escaped(&last_a.scenario.purpose));
    for report in [last_a, last_b] {
        let _ = write!(body, "<p>{}: {}</p>", escaped(&report.side), escaped(&report.promise));
        body.push_str(&warnings(report));
    }
    let _ = write!(
        body,
        "<p>{} pairs; {INTERVAL}.</p><table><tr><th></th><th>{}</th><th>{}</th><th>ratio</th><th></th></tr>",
        a.len().min(b.len()),
        escaped(&last_a.side),
        escaped(&last_b.side)
    );
    for ratio in ratios {
        let (low, high) = ratio.interval();
        let _ = write!(
            body,
            "<tr><td>{} {}</td><td>{}</td><td>{}</td><td>{} ({} to {})</td><td>{}</td></tr>",
            escaped(&ratio.name),
            escaped(&ratio.unit),
            number(ratio.a),
            number(ratio.b),
            number(ratio.median()),
            number(low),
            number(high),
            ratio.outcome(),
        );
    }
    let _ = write!(body, "</table><h2>The last pair</h2>{}", charts(&[last_a, last_b]));
    for report in [last_a, last_b] {
        let _ = write!(body, "<pre>{}</pre>", escaped(&table::run(report)));
    }
    page(&title, &body)
}

#[cfg(test)]
mod tests {
    use super::super::pairs::ratios;
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn a_page_draws_what_happened_and_nothing_else_and_loads_nothing() {
        let html = run(&report("madang", 5.0));
        for part in [
            "Throughput, MiB/s",
            "Latency of a produce, ms",
            "Cores used",
            "p99.9</text>",
            "5.00 s</text>",
            "<polyline",
        ] {
            assert!(html.contains(part), "{part}");
        }
        assert!(!html.contains("Latency end to end"), "nothing was read");
        for outside in ["http:", "https:", "src=", "href=", "@import", "<script"] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let mut report = report("<b>\"&", 5.0);
        report.scenario.purpose = "<script>alert(1)</script>".to_owned();
        let html = run(&report);
        assert!(!html.contains("<script") && !html.contains("<b>"));
        assert!(html.contains("&lt;b&gt;&quot;&amp;"));
    }

    #[test]
    fn the_highest_point_touches_the_top_and_zero_the_bottom() {
        let line = Line { name: "x".to_owned(), points: vec![(0.0, 0.0), (10.0, 50.0)] };
        let svg = chart("t", &[line], seconds);
        assert!(
            svg.contains(&format!("points=\"{LEFT:.1},{:.1} {:.1},{TOP:.1}\"", HEIGHT - BOTTOM, WIDTH - 10.0)),
            "{svg}"
        );
    }

    #[test]
    fn pairs_show_both_sides_and_the_ratio() {
        let (a, b) = ([report("madang", 10.0)], [report("kafka", 20.0)]);
        let html = pairs(&a, &b, &ratios(&a, &b));
        for part in ["2.00 (2.00 to 2.00)", "madang produce", "kafka produce", "better"] {
            assert!(html.contains(part), "{part}");
        }
    }
}
