//! Starts and ends the brokers of a run, each with a folder of its own that goes with them.
//! Invariant: every process ends with the run, by its id; both sides give the promise that the scenario asks for, and say how.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use madang_load_tests::bench::scenario::{Brokers as Wanted, Durability};
use rustix::process::{Pid, Signal, kill_process};

use super::kernel;

/// How long an end may take.
const END: Duration = Duration::from_secs(60);

/// Who serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Madang,
    Kafka,
    /// One that runs already.
    Server(String),
}

impl Side {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Madang => "madang",
            Self::Kafka => "kafka",
            Self::Server(address) => address,
        }
    }
}

/// Where programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// Madang's binary.
    pub(crate) madang: PathBuf,
    /// The folder of Kafka's jars.
    pub(crate) kafka: Option<PathBuf>,
}

/// Brokers that serve.
pub(crate) struct Brokers {
    pub(crate) servers: String,
    pub(crate) promise: String,
    children: Vec<Child>,
    folder: Option<tempfile::TempDir>,
}

/// What each side does so that both promise the same.
fn promise(side: &Side, durability: Durability) -> String {
    let what = match durability {
        Durability::PageCache => "an acknowledged record survives the process, not the machine",
        Durability::Fsync => "an acknowledged record is synced",
        Durability::Defaults => "each side's own default, which are not equal",
    };
    let how = match (side, durability) {
        (Side::Server(_), _) => return "as whoever started it chose".to_owned(),
        (Side::Madang, Durability::PageCache) => "madang.durability=page-cache",
        (Side::Madang, Durability::Fsync | Durability::Defaults) => "madang.durability=fsync",
        (Side::Kafka, Durability::PageCache) => "no log.flush.interval, as is Kafka's default",
        (Side::Kafka, Durability::Fsync) => "log.flush.interval.messages=1",
        (Side::Kafka, Durability::Defaults) => "no log.flush.interval: not synced",
    };
    format!("{what}: {how}")
}

fn ports(count: usize) -> Result<Vec<u16>, String> {
    let sockets: Result<Vec<_>, _> = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect();
    let sockets = sockets.map_err(|error| format!("no free port: {error}"))?;
    sockets.iter().map(|socket| socket.local_addr().map(|at| at.port()).map_err(|error| error.to_string())).collect()
}

/// A port below those that the system gives to clients, with the two after it, and those 1,000 and 2,000 above, free.
fn base_port() -> Result<u16, String> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let salt = u16::try_from(std::process::id() % 500).unwrap_or(0);
    let mut candidates = (0..500).map(|step| 20_000 + (salt + step) % 500 * 4);
    let fits = |base: &u16| [0, 1000, 2000].iter().all(|above| (0..3).all(|node| is_free(base + above + node)));
    candidates.find(fits).ok_or_else(|| "no free ports".to_owned())
}

impl Brokers {
    /// Starts what the scenario asks for, on these cores. Must be called by a thread that lives as long as they do.
    ///
    /// # Errors
    /// A text for a person.
    pub(crate) fn start(side: &Side, programs: &Programs, wanted: &Wanted, more: &[String]) -> Result<Self, String> {
        let promise = promise(side, wanted.durability);
        if let Side::Server(servers) = side {
            return Ok(Self { servers: servers.clone(), promise, children: Vec::new(), folder: None });
        }
        let folder = tempfile::Builder::new().prefix("madang-bench-").tempdir();
        let folder = folder.map_err(|error| format!("no folder: {error}"))?;
        let mut brokers = Self { servers: String::new(), promise, children: Vec::new(), folder: Some(folder) };
        let own = if *side == Side::Madang { &wanted.madang } else { &wanted.kafka };
        let settings: Vec<String> = own.iter().chain(more).cloned().collect();
        if *side == Side::Madang {
            brokers.start_madang(&programs.madang, wanted, &settings)?;
        } else {
            let jars = programs.kafka.as_deref().ok_or("where are Kafka's jars? --kafka-libs DIR, or MADANG_KAFKA_LIBS; clients/compat/fetch-kafka.sh gets them")?;
            brokers.start_kafka(jars, wanted, &settings)?;
        }
        if !settings.is_empty() {
            brokers.promise = format!("{}; {}", brokers.promise, settings.join(" "));
        }
        Ok(brokers)
    }

    /// Where everything of theirs is kept; none for a server that runs already.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(tempfile::TempDir::path)
    }

    /// All their processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().flat_map(|child| kernel::family(child.id())).collect()
    }

    /// Whether one has ended by itself; says what it logged last.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let has_ended = self.children.iter_mut().any(|child| matches!(child.try_wait(), Ok(Some(_))));
        if !has_ended {
            return None;
        }
        let log = self.folder().and_then(|folder| fs::read(folder.join("log.txt")).ok()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().rev().take(12).collect();
        Some(lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    fn start_madang(&mut self, binary: &Path, wanted: &Wanted, settings: &[String]) -> Result<(), String> {
        let folder = self.folder().ok_or("no folder")?.to_owned();
        let durability = if wanted.durability == Durability::PageCache { "page-cache" } else { "fsync" };
        let mut command = program(binary);
        if wanted.nodes == 1 {
            let ports = ports(1)?;
            command.args(["start", "--data"]).arg(folder.join("data"));
            command.args([
                "--listen",
                &format!("127.0.0.1:{}", ports[0]),
                "--set",
                "madang.admin.listener=127.0.0.1:0",
            ]);
            self.servers = format!("127.0.0.1:{}", ports[0]);
        } else {
            let base = base_port()?;
            command.args(["cluster", "dev", "--nodes", &wanted.nodes.to_string(), "--data"]).arg(folder.join("data"));
            command.args(["--base-port", &base.to_string()]);
            self.servers =
                (base..base + wanted.nodes).map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
        }
        command.args([
            "--set",
            &format!("madang.durability={durability}"),
            "--set",
            "group.initial.rebalance.delay.ms=0",
        ]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.env("MADANG_LOG", std::env::var("MADANG_LOG").unwrap_or_else(|_| "warn".to_owned()));
        self.spawn(command, &folder)
    }

    fn start_kafka(&mut self, jars: &Path, wanted: &Wanted, settings: &[String]) -> Result<(), String> {
        let folder = self.folder().ok_or("no folder")?.to_owned();
        let classes = format!("{}/*", jars.display());
        let nodes = usize::from(wanted.nodes);
        let ports = ports(2 * nodes)?;
        let (kafka, control) = ports.split_at(nodes);
        let voters: Vec<String> =
            (1..).zip(control).map(|(id, port): (u16, _)| format!("{id}@127.0.0.1:{port}")).collect();
        // All nodes of a machine that has little memory share what one has.
        let heap = if nodes == 1 { "1G" } else { "640M" };
        for (at, port) in kafka.iter().enumerate() {
            let home = folder.join(format!("node-{}", at + 1));
            let failed = |error: std::io::Error| format!("{}: {error}", home.display());
            fs::create_dir_all(&home).map_err(failed)?;
            let properties = home.join("server.properties");
            let text = kafka_properties(
                at + 1,
                nodes,
                *port,
                control[at],
                &voters.join(","),
                &home,
                wanted.durability,
                settings,
            );
            fs::write(&properties, text).map_err(failed)?;
            let format = Command::new("java")
                .args(["-cp", &classes, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c"])
                .arg(&properties)
                .output()
                .map_err(|error| format!("java: {error}"))?;
            if !format.status.success() {
                return Err(format!(
                    "kafka.tools.StorageTool: {}{}",
                    String::from_utf8_lossy(&format.stdout),
                    String::from_utf8_lossy(&format.stderr)
                ));
            }
            let mut command = program(Path::new("java"));
            command.args([
                &format!("-Xmx{heap}"),
                &format!("-Xms{heap}"),
                "-XX:+UseG1GC",
                "-cp",
                &classes,
                "kafka.Kafka",
            ]);
            command.arg(&properties);
            self.spawn(command, &folder)?;
        }
        self.servers = kafka.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
        Ok(())
    }

    fn spawn(&mut self, mut command: Command, folder: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", command_name(folder));
        let log = File::options().create(true).append(true).open(folder.join("log.txt")).map_err(failed)?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log).current_dir(folder);
        self.children.push(command.spawn().map_err(|error| format!("{:?}: {error}", command.get_args()))?);
        Ok(())
    }
}

fn command_name(folder: &Path) -> String {
    folder.join("log.txt").display().to_string()
}

/// A program that ends in order should whoever runs it be killed.
fn program(binary: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(binary);
    command
}

#[expect(clippy::too_many_arguments, reason = "a node's place and the scenario's wishes, once")]
fn kafka_properties(
    id: usize,
    nodes: usize,
    port: u16,
    control: u16,
    voters: &str,
    home: &Path,
    durability: Durability,
    settings: &[String],
) -> String {
    let (factor, min_isr) = if nodes == 1 { (1, 1) } else { (3, 2) };
    let flush = if durability == Durability::Fsync { "log.flush.interval.messages=1\n" } else { "" };
    format!(
        "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{control}\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={}\n\
         offsets.topic.replication.factor={factor}\ntransaction.state.log.replication.factor={factor}\n\
         transaction.state.log.min.isr={min_isr}\nshare.coordinator.state.topic.replication.factor={factor}\n\
         share.coordinator.state.topic.min.isr={min_isr}\ngroup.initial.rebalance.delay.ms=0\n\
         message.max.bytes=67108864\nreplica.fetch.max.bytes=67108864\n{flush}{}\n",
        home.join("data").display(),
        settings.join("\n")
    )
}

impl Drop for Brokers {
    fn drop(&mut self) {
        let signal = |child: &Child| {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok())
        };
        for child in &self.children {
            signal(child);
        }
        for child in &mut self.children {
            if !kernel::poll(END, || matches!(child.try_wait(), Ok(Some(_)) | Err(_))) {
                drop(child.kill());
                drop(child.wait());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_promises_are_kept_by_equal_settings() {
        let kafka =
            |durability| kafka_properties(1, 1, 9092, 9093, "1@127.0.0.1:9093", Path::new("/tmp/x"), durability, &[]);
        assert!(kafka(Durability::Fsync).contains("log.flush.interval.messages=1\n"));
        assert!(!kafka(Durability::PageCache).contains("log.flush.interval"));
        assert!(promise(&Side::Kafka, Durability::Fsync).contains("log.flush.interval.messages=1"));
        assert!(promise(&Side::Madang, Durability::Fsync).contains("madang.durability=fsync"));
        assert!(promise(&Side::Madang, Durability::Defaults).contains("not equal"));
    }

    #[test]
    fn ports_of_a_cluster_are_free_together() {
        let base = base_port().expect("ports");
        assert!(TcpListener::bind(("127.0.0.1", base + 2002)).is_ok());
        let two = ports(2).expect("two");
        assert_ne!(two[0], two[1]);
    }
}
