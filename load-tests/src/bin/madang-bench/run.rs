//! One run: brokers, topics, what is to be there before, the load, the last answers, the check, the report.
//! Invariant: what is measured lies between two looks at the same clock; nothing is reported of a run that could not be made.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use madang_client::{Admin, NewTopic};
use madang_load_tests::bench::measure::{Flow, Meter};
use madang_load_tests::bench::proc_text::Usage;
use madang_load_tests::bench::report::{BrokerUse, GeneratorUse, Machine, Report};
use madang_load_tests::bench::scenario::Scenario;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::brokers::{Brokers, Programs, Side};
use super::sampler::Sampler;
use super::state::Shared;
use super::{kernel, librdkafka, native, storm};

/// How long brokers may take until they serve.
const START: Duration = Duration::from_secs(120);
const SECOND: u64 = 1_000_000_000;
/// Records of this size fit into a batch that every broker takes by default.
const LARGE: u32 = 900_000;

/// What sends and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Generator {
    /// Madang's own client.
    Native,
    /// librdkafka.
    Librdkafka,
}

/// What a run needs beside its scenario.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) scenario: Scenario,
    pub(crate) generator: Generator,
    pub(crate) programs: Programs,
    /// The cores of brokers that are started here; all if empty.
    pub(crate) broker_cores: Vec<usize>,
    /// The generator's; all if empty.
    pub(crate) generator_cores: Vec<usize>,
    /// More settings of each side's brokers.
    pub(crate) madang_settings: Vec<String>,
    pub(crate) kafka_settings: Vec<String>,
}

/// What was used so far at one moment.
struct Look {
    at: u64,
    brokers: Option<Usage>,
    own: Usage,
    flushes: Option<u64>,
    busy: Option<f64>,
}

/// Runs a scenario once on one side. To be called by a thread that outlives the run.
///
/// # Errors
/// A text for a person: it could not be run.
pub(crate) fn run(plan: &Plan, side: &Side) -> Result<Report, String> {
    let machine = kernel::machine();
    let all_cores = kernel::cores();
    let settings = if *side == Side::Kafka { &plan.kafka_settings } else { &plan.madang_settings };
    kernel::keep_to(&plan.broker_cores)?;
    let started = Brokers::start(side, &plan.programs, &plan.scenario.broker, settings);
    let kept = kernel::keep_to(if plan.generator_cores.is_empty() { &all_cores } else { &plan.generator_cores });
    let mut brokers = started?;
    kept?;
    let threads = kernel::cores().len();
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let report = Run::new(plan, side, machine, &mut brokers).and_then(|mut run| run.on(&runtime));
    runtime.shutdown_timeout(Duration::from_secs(5));
    drop(brokers);
    kernel::keep_to(&all_cores)?;
    report
}

struct Run<'a> {
    plan: &'a Plan,
    side: &'a Side,
    machine: Machine,
    brokers: &'a mut Brokers,
    shared: Arc<Shared>,
    started_s: u64,
    notes: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, side: &'a Side, machine: Machine, brokers: &'a mut Brokers) -> Result<Self, String> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
        // Names of topics are of the run, so that a server that runs already may be asked again and again.
        let run = since.as_millis() as u64;
        let shared = Arc::new(Shared::new(plan.scenario.clone(), run, brokers.servers.clone()));
        Ok(Self { plan, side, machine, brokers, shared, started_s: since.as_secs(), notes: Vec::new() })
    }

    fn on(&mut self, runtime: &Runtime) -> Result<Report, String> {
        self.wait_serving(runtime)?;
        runtime.block_on(create_topics(&self.shared))?;
        self.preload(runtime)?;
        let report = runtime.block_on(self.load());
        if matches!(self.side, Side::Server(_)) {
            runtime.block_on(delete_topics(&self.shared));
        }
        match self.brokers.ended() {
            Some(log) => Err(format!("a broker ended during the run:\n{log}")),
            None => report,
        }
    }

    fn wait_serving(&mut self, runtime: &Runtime) -> Result<(), String> {
        let nodes = usize::from(self.plan.scenario.broker.nodes);
        let begin = Instant::now();
        loop {
            let admin = Admin::new(native::client(&self.shared.servers));
            let seen = runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(5), admin.describe_cluster()).await });
            match seen {
                Ok(Ok(cluster)) if matches!(self.side, Side::Server(_)) || cluster.brokers.len() >= nodes => {
                    return Ok(());
                }
                other => {
                    if let Some(log) = self.brokers.ended() {
                        return Err(format!("{} does not start:\n{log}", self.side.name()));
                    }
                    if begin.elapsed() > START {
                        return Err(format!("{} does not serve: {other:?}", self.shared.servers));
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Writes what readers are to find, reads it once, and drops it from the page cache if it is to be cold.
    fn preload(&mut self, runtime: &Runtime) -> Result<(), String> {
        let consumers = &self.plan.scenario.consumers;
        if consumers.preload_mib == 0 {
            return Ok(());
        }
        eprintln!("{}: writing {} MiB to be read", self.title(), consumers.preload_mib);
        let spare = consumers.groups.max(1);
        runtime.block_on(async {
            native::preload(Arc::clone(&self.shared), consumers.preload_mib << 20).await;
            native::read_all(&self.shared, spare).await;
        });
        let counts = self.shared.counts();
        let (sent, acknowledged) = counts.verifier.written();
        let missing = counts.verifier.missing(spare);
        if missing > 0 || acknowledged < sent {
            return Err(format!(
                "of what was preloaded {} records were not acknowledged and {missing} not read: {:?}",
                sent - acknowledged,
                counts.errors
            ));
        }
        drop(counts);
        let Some(folder) = self.brokers.folder().filter(|_| consumers.cold) else {
            if consumers.cold {
                return Err("consumers.cold: only with brokers that are started here".to_owned());
            }
            return Ok(());
        };
        let dropped = kernel::drop_cached(folder)?;
        self.notes.push(format!("{} MiB were dropped from the page cache before they were read", dropped >> 20));
        Ok(())
    }

    fn title(&self) -> String {
        format!("{} on {}", self.plan.name, self.side.name())
    }

    fn look(&self) -> Look {
        let brokers = kernel::usage_of_all(&self.brokers.pids()).filter(|_| self.brokers.folder().is_some());
        Look {
            at: self.shared.now(),
            brokers,
            own: kernel::usage(std::process::id()).unwrap_or_default(),
            flushes: self.brokers.folder().and_then(kernel::disk_flushes),
            busy: kernel::busy_seconds(&self.plan.broker_cores).filter(|_| !self.plan.broker_cores.is_empty()),
        }
    }

    fn spawn<F>(&self, native: F, other: fn(&Arc<Shared>)) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self.plan.generator {
            Generator::Native => tokio::spawn(native),
            Generator::Librdkafka => {
                let shared = Arc::clone(&self.shared);
                tokio::task::spawn_blocking(move || other(&shared))
            }
        }
    }

    async fn load(&mut self) -> Result<Report, String> {
        let (time, catches_up) = (self.plan.scenario.time, self.plan.scenario.consumers.preload_mib > 0);
        let preloaded = self.shared.counts().verifier.written().1;
        let (warm, end) = (time.warm_up_s * SECOND, (time.warm_up_s + time.steady_s) * SECOND);
        let idle = self.look().brokers.map_or(0, |usage| usage.resident_bytes);
        self.shared.end_ns.store(end, Ordering::Release);
        self.shared.begin_now(&Meter::new(warm, end));
        let sampler = Arc::new(Sampler::new(&self.shared, self.brokers.pids(), self.title()));
        let sampled = Arc::clone(&sampler);
        let sampling = tokio::spawn(async move { sampled.run().await });
        let consume = |run: &Self| run.spawn(native::consume(Arc::clone(&run.shared)), librdkafka::consume);
        let mut reading = (!catches_up).then(|| consume(self));
        let producing = (self.plan.scenario.producers.count > 0)
            .then(|| self.spawn(native::produce(Arc::clone(&self.shared)), librdkafka::produce));
        let connecting = tokio::spawn(storm::run(Arc::clone(&self.shared)));
        tokio::time::sleep_until(self.shared.moment(warm).into()).await;
        let first = self.look();
        if catches_up {
            reading = Some(consume(self));
        }
        self.window_ends(end, catches_up.then_some(preloaded)).await;
        let last = self.look();
        self.shared.end_ns.store(last.at, Ordering::Release);
        self.shared.producers_end.set();
        for task in [producing, Some(connecting)].into_iter().flatten() {
            task.await.map_err(|error| format!("the generator: {error}"))?;
        }
        self.drain().await;
        self.shared.consumers_end.set();
        if let Some(reading) = reading {
            reading.await.map_err(|error| format!("the generator: {error}"))?;
        }
        if self.plan.scenario.consumers.groups == 0 {
            native::read_all(&self.shared, 0).await;
        }
        sampler.end.set();
        sampling.await.map_err(|error| format!("the generator: {error}"))?;
        Ok(self.report(&sampler, &first, &last, idle))
    }

    /// At its time, or when all readers have what was there before.
    async fn window_ends(&self, end: u64, preloaded: Option<u64>) {
        let moment = self.shared.moment(end);
        let Some(preloaded) = preloaded else { return tokio::time::sleep_until(moment.into()).await };
        while Instant::now() < moment {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mut counts = self.shared.counts();
            // What producers have added comes after it in each partition.
            let groups = self.plan.scenario.consumers.groups;
            if (0..groups).all(|group| counts.verifier.distinct(group) >= preloaded) {
                let now = self.shared.now();
                counts.produce.close_window(now);
                counts.consume.close_window(now);
                counts.connect.close_window(now);
                return;
            }
        }
    }

    /// Until every group has read what was acknowledged, or nothing more comes.
    async fn drain(&self) {
        let groups = self.plan.scenario.consumers.groups;
        let patience = Duration::from_secs(self.plan.scenario.time.drain_s);
        let mut last = (0, Instant::now());
        while groups > 0 && last.1.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let counts = self.shared.counts();
            let read: u64 = (0..groups).map(|group| counts.verifier.distinct(group)).sum();
            if read != last.0 {
                last = (read, Instant::now());
            } else if (0..groups).all(|group| counts.verifier.missing(group) == 0) {
                return;
            }
        }
    }

    fn report(&mut self, sampler: &Sampler, first: &Look, last: &Look, idle: u64) -> Report {
        let seen = sampler.take();
        let window_s = last.at.saturating_sub(first.at) as f64 / 1e9;
        let share = |cpu: f64, cores: usize| cpu / (window_s.max(1e-9) * cores.max(1) as f64);
        let own = last.own.since(first.own).cpu_s;
        let cores = |cores: &[usize]| if cores.is_empty() { self.machine.cores } else { cores.len() };
        let broker = first.brokers.zip(last.brokers).map(|(before, after)| {
            let usage = after.since(before);
            let cores = cores(&self.plan.broker_cores);
            let busy =
                first.busy.zip(last.busy).map(|(before, after)| share((after - before - usage.cpu_s).max(0.0), cores));
            BrokerUse {
                usage,
                resident_peak_bytes: seen.resident_peak.max(after.resident_bytes),
                resident_idle_bytes: idle,
                disk_flushes: first.flushes.zip(last.flushes).map(|(before, after)| after.saturating_sub(before)),
                share: share(usage.cpu_s, cores),
                others: busy,
                cores: self.plan.broker_cores.clone(),
            }
        });
        let counts = self.shared.counts();
        let groups = self.plan.scenario.consumers.groups;
        let names: Vec<String> = if groups == 0 {
            vec!["check".to_owned()]
        } else {
            (0..groups).map(|group| format!("group {group}")).collect()
        };
        let happened = |flow: Flow, is_wanted: bool| is_wanted.then_some(flow);
        self.notes.extend(counts.errors.iter().map(|error| format!("error: {error}")));
        let churned = self.shared.churned.load(Ordering::Relaxed);
        if churned > 0 {
            self.notes.push(format!("{churned} times a member left its group and another joined"));
        }
        let scenario = &self.plan.scenario;
        Report {
            name: self.plan.name.clone(),
            side: self.side.name().to_owned(),
            client: if self.plan.generator == Generator::Native { "madang-client" } else { "librdkafka" }.to_owned(),
            promise: self.brokers.promise.clone(),
            run: self.shared.run,
            started_s: self.started_s,
            machine: self.machine.clone(),
            window_s,
            produce: happened(counts.produce.flow(), scenario.producers.count > 0),
            consume: happened(counts.consume.flow(), groups > 0),
            connect: happened(counts.connect.flow(), scenario.connections.rate > 0),
            backlog: self.shared.backlog.load(Ordering::Relaxed),
            broker,
            generator: GeneratorUse {
                cpu_s: own,
                share: share(own, cores(&self.plan.generator_cores)),
                cores: self.plan.generator_cores.clone(),
            },
            verdict: counts.verifier.verdict(&names),
            notes: std::mem::take(&mut self.notes),
            series: seen.series,
            scenario: scenario.clone(),
        }
    }
}

async fn create_topics(shared: &Shared) -> Result<(), String> {
    let client = native::client(&shared.servers);
    let admin = Admin::new(client.clone());
    let wanted = &shared.scenario.topics;
    let mut configs: BTreeMap<String, String> = wanted.configs.clone();
    if shared.scenario.records.size.bounds().1 > LARGE {
        configs.entry("max.message.bytes".to_owned()).or_insert_with(|| "67108864".to_owned());
    }
    for topic in &shared.topics {
        let new = NewTopic {
            name: topic.to_string(),
            partitions: i32::try_from(wanted.partitions).ok(),
            replication_factor: i16::try_from(wanted.replication_factor).ok(),
            configs: configs.clone(),
        };
        admin.create_topic(&new, false).await.map_err(|error| format!("cannot create {topic}: {error}"))?;
    }
    let names: Vec<&str> = shared.topics.iter().map(|topic| &**topic).collect();
    let begin = Instant::now();
    loop {
        // A node that has not heard of the topics yet says that there are none.
        match client.usable_metadata(&names, false).await {
            Ok(_) => return Ok(()),
            Err(error) if begin.elapsed() > START => return Err(format!("topics without leaders: {error}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn delete_topics(shared: &Shared) {
    let admin = Admin::new(native::client(&shared.servers));
    for topic in &shared.topics {
        if let Err(error) = admin.delete_topic(topic).await {
            eprintln!("madang-bench: {topic} is left behind: {error}");
        }
    }
}
