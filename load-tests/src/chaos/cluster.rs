//! Three nodes as processes, each under its supervisor, who reach each other through the proxy.
//! Invariant: every process ends with the cluster, ended by its id.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rustix::process::Signal;
use serde_json::Value;

use super::disk::Disk;
use super::ports::{self, Ports};
use super::processes::{children, lives, signal};
use super::proxy::{Front, Proxy};

pub(crate) const NODES: u16 = 3;
/// How long an end may take.
const END: Duration = Duration::from_secs(40);
const PAGE: Duration = Duration::from_secs(3);

/// One node.
pub(crate) struct Node {
    pub(crate) id: u8,
    pub(crate) folder: PathBuf,
    pub(crate) ports: Ports,
    pub(crate) disk: Option<Disk>,
    /// Boots of its machine so far: each power cut is one.
    pub(crate) boots: u64,
    supervisor: Option<Child>,
}

/// The nodes, and what is between them.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) proxy: Proxy,
    binary: PathBuf,
    run: u64,
}

/// Asks again and again until it says yes; false if it does not in time.
pub(crate) fn poll(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + patience;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Node {
    /// Where its two log directories are.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("disk")
    }

    pub(crate) fn log(&self) -> String {
        fs::read(self.folder.join("node.log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The file of faults to be planted.
    pub(crate) fn plan(&self) -> PathBuf {
        self.folder.join("plan")
    }

    fn configuration(&self, voters: &str, settings: &[String]) -> String {
        let (id, folder, data, Ports { kafka, admin, nodes, front }) =
            (self.id, self.folder.display(), self.data(), self.ports);
        let data = data.display();
        format!(
            "node.id={id}\nlisteners=PLAINTEXT://127.0.0.1:{kafka}\nmadang.admin.listener=127.0.0.1:{admin}\n\
             madang.node.listener=127.0.0.1:{nodes}\nmadang.node.advertised.listener=127.0.0.1:{front}\n\
             madang.node.certificates={folder}/certificates\ncontroller.quorum.voters={voters}\n\
             log.dirs={data}/a,{data}/b\ndefault.replication.factor=3\nmin.insync.replicas=2\n\
             offsets.topic.num.partitions=3\ngroup.initial.rebalance.delay.ms=0\nlog.segment.bytes=4194304\n{}\n",
            settings.join("\n")
        )
    }

    fn start(&mut self, binary: &Path, run: u64) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("node {}: {error}", self.id);
        let log = File::options().create(true).append(true).open(self.folder.join("node.log")).map_err(failed)?;
        // It ends in order should whoever runs it be killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(binary).args(["start", "--supervise", "--config"]);
        command.arg(self.folder.join("node.properties")).env("MADANG_FAILPOINTS", self.plan());
        if self.disk.is_some() {
            command.env("MADANG_TEST_BOOT_ID", format!("run-{run}-node-{}-boot-{}", self.id, self.boots));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        self.supervisor = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    fn supervisor(&self) -> Option<u32> {
        self.supervisor.as_ref().map(Child::id)
    }

    /// The process that is the node.
    pub(crate) fn process(&self) -> Option<u32> {
        children(self.supervisor()?).first().copied()
    }

    /// Bytes of memory that its process has resident.
    pub(crate) fn resident(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// Signals the node's process; false if there is none.
    pub(crate) fn signal(&self, what: Signal) -> bool {
        self.process().is_some_and(|pid| signal(pid, what))
    }

    /// Signals the supervisor.
    pub(crate) fn signal_supervisor(&self, what: Signal) -> bool {
        self.supervisor().is_some_and(|pid| signal(pid, what))
    }

    /// Kills supervisor and node, and waits until both are gone.
    pub(crate) fn kill(&mut self) -> bool {
        let node = self.process();
        let Some(mut supervisor) = self.supervisor.take() else { return false };
        // The supervisor first: it would start another one.
        drop(supervisor.kill());
        drop(supervisor.wait());
        node.is_none_or(|pid| {
            signal(pid, Signal::KILL);
            poll(END, || !lives(pid))
        })
    }

    /// Ends it in order.
    fn end(&mut self) {
        let node = self.process();
        let Some(mut supervisor) = self.supervisor.take() else { return };
        for pid in [Some(supervisor.id()), node].into_iter().flatten() {
            signal(pid, Signal::CONT);
        }
        signal(supervisor.id(), Signal::TERM);
        if !poll(END, || matches!(supervisor.try_wait(), Ok(Some(_)) | Err(_))) {
            drop(supervisor.kill());
            drop(supervisor.wait());
        }
        if let Some(pid) = node.filter(|pid| lives(*pid)) {
            signal(pid, Signal::KILL);
        }
    }

    /// A page of its admin listener.
    pub(crate) fn page(&self, path: &str) -> Option<Value> {
        let address = (std::net::Ipv4Addr::LOCALHOST, self.ports.admin).into();
        let mut stream = TcpStream::connect_timeout(&address, PAGE).ok()?;
        stream.set_read_timeout(Some(PAGE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok())?
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

impl Cluster {
    /// Makes certificates, files and disks, and starts the nodes.
    ///
    /// # Errors
    /// A text for a person.
    pub(crate) fn start(
        folder: &Path,
        binary: &Path,
        seed: u64,
        settings: &[String],
        disks_gib: Option<u8>,
    ) -> Result<Self, String> {
        let ports = ports::find(NODES, std::process::id()).ok_or("no free ports")?;
        let front = |node: u8, ports: &Ports, above: u16| Front {
            node,
            port: ports.front + above,
            target: ports.nodes + above,
        };
        let fronts: Vec<Front> =
            (1..).zip(&ports).flat_map(|(id, ports)| [front(id, ports, 0), front(id, ports, 1)]).collect();
        let proxy = Proxy::start(seed, &fronts).map_err(|error| format!("the proxy: {error}"))?;
        let authority = folder.join("authority");
        madang(binary, &["cert".as_ref(), "authority".as_ref(), "--dir".as_ref(), &authority])?;
        let voters: Vec<String> =
            (1..).zip(&ports).map(|(id, ports): (u8, _)| format!("{id}@127.0.0.1:{}", ports.front + 1)).collect();
        let mut nodes = Vec::new();
        for (id, ports) in (1_u8..).zip(ports) {
            let folder = folder.join(format!("node-{id}"));
            let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
            fs::create_dir_all(&folder).map_err(failed)?;
            let mut node = Node { id, folder: folder.clone(), ports, disk: None, boots: 0, supervisor: None };
            if let Some(gib) = disks_gib {
                node.disk = Some(Disk::new(folder.join("disk.img"), node.data(), gib)?);
            }
            let (certificates, number) = (folder.join("certificates"), id.to_string());
            let common: [&Path; 4] = ["cert".as_ref(), "node".as_ref(), "--authority".as_ref(), &authority];
            let own: [&Path; 4] = ["--node".as_ref(), number.as_ref(), "--dir".as_ref(), &certificates];
            madang(binary, &[common, own].concat())?;
            fs::write(folder.join("node.properties"), node.configuration(&voters.join(","), settings))
                .map_err(failed)?;
            fs::write(node.plan(), "").map_err(failed)?;
            node.start(binary, seed)?;
            nodes.push(node);
        }
        Ok(Self { nodes, proxy, binary: binary.to_owned(), run: seed })
    }

    pub(crate) fn servers(&self) -> String {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.ports.kafka)).collect::<Vec<_>>().join(",")
    }

    /// Makes the topic of the load.
    ///
    /// # Errors
    /// A text for a person.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32) -> Result<(), String> {
        let (server, partitions) = (format!("127.0.0.1:{}", self.nodes[0].ports.kafka), partitions.to_string());
        let command: [&Path; 7] = [
            "topic".as_ref(),
            "create".as_ref(),
            name.as_ref(),
            "--partitions".as_ref(),
            partitions.as_ref(),
            "--server".as_ref(),
            server.as_ref(),
        ];
        madang(&self.binary, &command)
    }

    /// Starts supervisors that have ended, as whoever runs a supervisor does.
    pub(crate) fn start_what_ended(&mut self) -> Result<(), String> {
        for node in &mut self.nodes {
            let ended = node.supervisor.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended {
                node.start(&self.binary, self.run)?;
            }
        }
        Ok(())
    }

    /// Whether every node serves and every partition has all its replicas, as every node sees it.
    fn is_whole(&self) -> bool {
        let whole = |seen: &Value| {
            let nodes = seen["nodes"].as_array().map_or(&[][..], Vec::as_slice);
            let serving = nodes.iter().filter(|node| node["state"] == "serving").count();
            let lacks = ["under_replicated", "under_min_isr", "offline"];
            serving == usize::from(NODES) && lacks.iter().all(|what| seen["partitions"][what] == 0)
        };
        self.nodes.iter().all(|node| node.page("/cluster").as_ref().is_some_and(whole))
    }

    /// Waits until it is whole.
    ///
    /// # Errors
    /// It is not, in time; says how it is.
    pub(crate) fn wait_whole(&mut self, patience: Duration) -> Result<(), String> {
        let until = Instant::now() + patience;
        while !self.is_whole() {
            self.start_what_ended()?;
            if Instant::now() > until {
                let pages: Vec<String> = self.nodes.iter().map(|node| format!("{:?}", node.page("/cluster"))).collect();
                return Err(format!("the cluster is not whole after {patience:?}: {}", pages.join("\n")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The node that controls, if it is known.
    pub(crate) fn controller(&self) -> Option<u8> {
        let seen = self.nodes.iter().find_map(|node| node.page("/cluster"))?;
        seen["controller"].as_u64().and_then(|id| u8::try_from(id).ok())
    }

    /// The places of the nodes that lead most partitions of a topic.
    ///
    /// # Errors
    /// Nobody says who leads.
    pub(crate) fn lead_most(&self, topic: &str) -> Result<Vec<usize>, String> {
        let failed = |error: KafkaError| format!("who leads {topic}: {error}");
        let made: Result<BaseConsumer, _> = ClientConfig::new().set("bootstrap.servers", self.servers()).create();
        let metadata = made.and_then(|client| client.fetch_metadata(Some(topic), PAGE)).map_err(failed)?;
        let leaders: Vec<i32> =
            metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|one| one.leader()).collect();
        let leads = |node: &Node| leaders.iter().filter(|leader| **leader == i32::from(node.id)).count();
        let most = self.nodes.iter().map(leads).max();
        Ok((0..self.nodes.len()).filter(|place| Some(leads(&self.nodes[*place])) == most).collect())
    }
}

fn madang(binary: &Path, arguments: &[&Path]) -> Result<(), String> {
    let ran =
        Command::new(binary).args(arguments).output().map_err(|error| format!("{}: {error}", binary.display()))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    if ran.status.success() { Ok(()) } else { Err(format!("{arguments:?}: {}", said.trim())) }
}
