//! What a run says: the model that is saved as JSON and from which tables, pages and ratios are made.
//! Invariant: a number that could not be had is absent, with a note that says why.

use serde::{Deserialize, Serialize};

use super::measure::{Flow, Interval, Latency};
use super::proc_text::Usage;
use super::scenario::Scenario;
use super::verify::Verdict;

/// The machine, and how busy it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores.
    pub cores: usize,
    /// The kernel's version.
    pub kernel: String,
    /// The load average of a minute before the run.
    pub load: f64,
}

/// What the brokers used in the window, if they were started here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerUse {
    /// Used and held.
    pub usage: Usage,
    /// The most resident memory that was seen.
    pub resident_peak_bytes: u64,
    /// Resident memory before anything was sent.
    pub resident_idle_bytes: u64,
    /// Flushes of the disk that holds the data.
    pub disk_flushes: Option<u64>,
    /// The share of the brokers' cores that they themselves used.
    pub share: f64,
    /// The share of the brokers' cores that others used.
    pub others: Option<f64>,
    /// The cores they are kept to; all if empty.
    pub cores: Vec<usize>,
}

/// What the generator used in the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneratorUse {
    /// User and system time, in seconds.
    pub cpu_s: f64,
    /// The share of the generator's cores.
    pub share: f64,
    /// The cores it is kept to; all if empty.
    pub cores: Vec<usize>,
}

/// From this share of its cores on the generator is what bounds the run.
pub const CLIENT_BOUND: f64 = 0.9;

/// One moment of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds after the start.
    pub at_s: f64,
    /// Seconds since the sample before.
    pub over_s: f64,
    /// Records acknowledged.
    pub produce: Interval,
    /// Records read.
    pub consume: Interval,
    /// Connections made.
    pub connect: Interval,
    /// The share of one core that the brokers used.
    pub broker_cores: f64,
    /// Resident memory of the brokers.
    pub resident_bytes: u64,
    /// Open files and sockets of the brokers.
    pub descriptors: u64,
    /// The share of one core that the generator used.
    pub generator_cores: f64,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name.
    pub name: String,
    /// The scenario.
    pub scenario: Scenario,
    /// `madang`, `kafka`, or the address of a server that was running.
    pub side: String,
    /// What sent and read.
    pub client: String,
    /// What an acknowledgement promises, and the settings that make it so.
    pub promise: String,
    /// Number of the run.
    pub run: u64,
    /// Seconds since 1970.
    pub started_s: u64,
    /// Where it ran.
    pub machine: Machine,
    /// Length of the window in seconds.
    pub window_s: f64,
    /// Records acknowledged.
    pub produce: Option<Flow>,
    /// Records read, from when they were to be sent.
    pub consume: Option<Flow>,
    /// Connections made.
    pub connect: Option<Flow>,
    /// Records due in the window and not sent at its end.
    pub backlog: u64,
    /// What the brokers used.
    pub broker: Option<BrokerUse>,
    /// What the generator used.
    pub generator: GeneratorUse,
    /// Whether what was read is what was written.
    pub verdict: Verdict,
    /// What else is to be known.
    pub notes: Vec<String>,
    /// How it went.
    pub series: Vec<Sample>,
}

/// Which way a number is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Better {
    /// More is.
    More,
    /// Less is.
    Less,
}

/// A number of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// What it is.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// Which way it is better.
    pub better: Better,
    /// The number.
    pub value: f64,
}

impl Report {
    /// Whether the generator used all that it may.
    #[must_use]
    pub fn is_client_bound(&self) -> bool {
        self.generator.share >= CLIENT_BOUND
    }

    /// The numbers that are compared.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let mut all = Vec::new();
        let flows = [("produce", &self.produce), ("consume", &self.consume), ("connect", &self.connect)];
        for (name, flow) in flows {
            if let Some(flow) = flow {
                self.flow_metrics(name, flow, &mut all);
            }
        }
        if let Some(broker) = &self.broker {
            self.broker_metrics(broker, &mut all);
        }
        all
    }

    fn flow_metrics(&self, name: &str, flow: &Flow, all: &mut Vec<Metric>) {
        let mut add = |what: &str, unit, better, value| {
            all.push(Metric { name: format!("{name} {what}"), unit, better, value });
        };
        // On schedule every broker that keeps up has the rate of the schedule.
        let is_free = match name {
            "produce" => self.scenario.records_per_second().is_none(),
            "consume" => self.scenario.records_per_second().is_none() || self.scenario.consumers.preload_mib > 0,
            _ => false,
        };
        if is_free && flow.count > 0 {
            add("rate", "/s", Better::More, flow.per_second(self.window_s));
        }
        if is_free && flow.bytes > 0 {
            add("throughput", "MiB/s", Better::More, flow.mib_per_second(self.window_s));
        }
        for percentile in [50.0, 99.0, 99.9] {
            if let Some(latency) = flow.latency.as_ref().and_then(|latency: &Latency| latency.at(percentile)) {
                add(&format!("p{percentile}"), "ms", Better::Less, latency as f64 / 1000.0);
            }
        }
    }

    fn broker_metrics(&self, broker: &BrokerUse, all: &mut Vec<Metric>) {
        let mut add = |name: &str, unit, value: f64| {
            all.push(Metric { name: name.to_owned(), unit, better: Better::Less, value });
        };
        let usage = &broker.usage;
        add("broker CPU", "s", usage.cpu_s);
        let total = |of: fn(&Flow) -> u64| [&self.produce, &self.consume].into_iter().flatten().map(of).sum::<u64>();
        let (bytes, count) = (total(|flow| flow.bytes), total(|flow| flow.count));
        if bytes > 0 {
            add("broker CPU per GiB", "s/GiB", usage.cpu_s / (bytes as f64 / f64::from(1 << 30)));
        }
        if count > 0 {
            add("broker CPU per record", "us", usage.cpu_s * 1e6 / count as f64);
        }
        let connected = self.connect.as_ref().map_or(0, |flow| flow.count);
        if connected > 0 {
            add("broker CPU per connection", "us", usage.cpu_s * 1e6 / connected as f64);
        }
        add("resident memory, most", "MiB", broker.resident_peak_bytes as f64 / f64::from(1 << 20));
        add("bytes written to disk", "MiB", usage.written_bytes as f64 / f64::from(1 << 20));
        add("voluntary context switches", "", usage.voluntary_switches as f64);
        add("involuntary context switches", "", usage.involuntary_switches as f64);
        if let Some(flushes) = broker.disk_flushes {
            add("flushes of the disk", "", flushes as f64);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run that produced 1 GiB in `window_s` with 2 s of the broker's CPU.
    pub(crate) fn report(side: &str, window_s: f64) -> Report {
        let changes = ["producers.rate=saturated".to_owned()];
        let scenario = Scenario::read("purpose = \"A test.\"", &changes).expect("sound");
        let latency = Latency { count: 9, mean_us: 2.0, percentiles: vec![(50.0, 1500), (99.0, 9000), (99.9, 20_000)] };
        let usage = Usage { cpu_s: 2.0, written_bytes: 5 << 20, ..Usage::default() };
        let sample = |at: u32| Sample {
            at_s: f64::from(at),
            over_s: 1.0,
            produce: Interval { count: 1000, bytes: 1 << 20, p50_us: 900, p99_us: 4000 * u64::from(at), max_us: 9000 },
            resident_bytes: 30 << 20,
            broker_cores: 0.5,
            ..Sample::default()
        };
        Report {
            name: "one".to_owned(),
            scenario,
            side: side.to_owned(),
            client: "native".to_owned(),
            promise: "page cache".to_owned(),
            run: 1,
            started_s: 0,
            machine: Machine::default(),
            window_s,
            produce: Some(Flow { count: 1 << 20, bytes: 1 << 30, errors: 0, latency: Some(latency), lateness: None }),
            consume: None,
            connect: None,
            backlog: 0,
            broker: Some(BrokerUse { usage, resident_peak_bytes: 40 << 20, ..BrokerUse::default() }),
            generator: GeneratorUse { cpu_s: 1.0, share: 0.5, cores: vec![1] },
            verdict: Verdict::default(),
            notes: Vec::new(),
            series: (1..=5).map(sample).collect(),
        }
    }

    fn metric(report: &Report, name: &str) -> Option<f64> {
        report.metrics().into_iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    #[test]
    fn rates_are_of_the_window_and_costs_of_what_was_moved() {
        let report = report("madang", 10.0);
        assert_eq!(metric(&report, "produce throughput"), Some(102.4));
        assert_eq!(metric(&report, "broker CPU per GiB"), Some(2.0));
        assert_eq!(metric(&report, "produce p99"), Some(9.0));
        assert_eq!(metric(&report, "flushes of the disk"), None, "what could not be counted is absent");
        assert_eq!(metric(&report, "broker CPU per connection"), None);
    }

    #[test]
    fn a_rate_that_the_schedule_gave_is_not_compared() {
        let mut report = report("madang", 10.0);
        report.scenario.producers.rate = crate::bench::scenario::Rate::PerSecond(100);
        assert_eq!((metric(&report, "produce rate"), metric(&report, "produce throughput")), (None, None));
        assert_eq!(metric(&report, "produce p99"), Some(9.0));
    }

    #[test]
    fn a_report_is_the_same_after_it_was_saved() {
        let report = report("kafka", 3.5);
        let text = serde_json::to_string(&report).expect("JSON");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("a report"), report);
    }

    #[test]
    fn a_generator_without_time_to_spare_is_the_bound() {
        let mut report = report("madang", 1.0);
        assert!(!report.is_client_bound());
        report.generator.share = 0.93;
        assert!(report.is_client_bound());
    }
}
