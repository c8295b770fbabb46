//! The process around a node's process: starts it again when it dies, kills it when it hangs, and tells the others that it is dead.
//! Invariant: a death is told only of a process that was reaped, and of the registration that this process had named.

mod deaths;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use madang_cluster::configs::{BrokerConfig, read_voters};
use madang_protocol::types::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

use self::deaths::Deaths;
use crate::node_env::Entropy;
use crate::outer::{ALIVE, EPOCH, MEMBERS, SUPERVISOR};

/// A process that dies more often than that in this time is left dead.
const CRASHES: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);
/// The wait before a dead process is started again.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long the last death may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long an orderly end may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A node's process, to be run.
#[derive(Debug)]
pub struct NodeProcess {
    /// What to call it in messages.
    pub name: String,
    /// What comes after the program's name.
    pub arguments: Vec<OsString>,
    /// Where its output goes, at the end of the file; none for where this process' goes.
    pub output: Option<PathBuf>,
    /// The node's settings.
    pub config: BrokerConfig,
    /// Whether it is also started again after an orderly end that nobody here has asked for.
    pub always: bool,
}

/// How a process came to its end.
enum End {
    /// By itself, or killed.
    Died(ExitStatus),
    /// Because this process was told to stop.
    Stopped,
}

/// What a running process has said.
#[derive(Debug, Default)]
struct Said {
    broker_epoch: Option<i64>,
    /// The other members of the quorum, once it knows them.
    members: Option<BTreeMap<NodeId, String>>,
    /// When it was alive, if it says so at all.
    alive: Option<Instant>,
}

/// Runs the node until `stopping` turns true, or until it ends in order by itself. Call it inside a `LocalSet`.
///
/// # Errors
/// A text for a person: it cannot be started, or it keeps dying.
pub async fn run(node: NodeProcess, mut stopping: watch::Receiver<bool>) -> Result<(), String> {
    let entropy = Entropy::default();
    let name = format!("madang-supervisor-{}-{:016x}", std::process::id(), entropy.next());
    let failed = |error: io::Error| format!("{}: {error}", node.name);
    let listener = listen(&name).map_err(failed)?;
    let mut deaths = Deaths::start(&node.config)?;
    let mut died: Vec<Instant> = Vec::new();
    loop {
        let mut process = spawn(&node, &name).map_err(failed)?;
        let mut said = Said::default();
        let ended =
            attend(&mut process, &listener, &node, deaths.as_mut(), &mut said, &mut stopping).await.map_err(failed)?;
        let End::Died(status) = ended else { return Ok(()) };
        let told = match (&deaths, said.broker_epoch) {
            (Some(deaths), Some(broker_epoch)) => Some(deaths.tell(broker_epoch)),
            _ => None,
        };
        if status.success() && !node.always {
            hear_out(told).await;
            return Ok(());
        }
        died.retain(|at| at.elapsed() < WITHIN);
        died.push(Instant::now());
        if died.len() > CRASHES {
            hear_out(told).await;
            return Err(format!(
                "{} ended ({status}) for the {}th time in a minute; it is left alone",
                node.name,
                died.len()
            ));
        }
        eprintln!("madang: {} ended ({status}); it is started again", node.name);
        tokio::select! {
            () = sleep(BACK_OFF) => {}
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

/// Whoever runs no process any more may end itself, and what it has to tell would end with it.
async fn hear_out(told: Option<JoinHandle<()>>) {
    if let Some(told) = told {
        drop(timeout(LAST_WORDS, told).await);
    }
}

fn listen(name: &str) -> io::Result<UnixListener> {
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn spawn(node: &NodeProcess, socket: &str) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(&node.arguments).env(SUPERVISOR, socket).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(path) = &node.output {
        let output = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        command.stdout(output.try_clone()?).stderr(output);
    }
    command.spawn()
}

/// Waits for the end of the process, hears what it says, and kills it once it has been silent for a session.
async fn attend(
    process: &mut Child,
    listener: &UnixListener,
    node: &NodeProcess,
    mut deaths: Option<&mut Deaths>,
    said: &mut Said,
    stopping: &mut watch::Receiver<bool>,
) -> io::Result<End> {
    let mut lines: Option<Lines<BufReader<UnixStream>>> = None;
    let patience = node.config.broker_session_timeout;
    // Whoever was asleep itself, as on a machine that was suspended, has not listened: the silence begins when it wakes.
    let (mut looks, mut looked) = (interval(patience / 5), Instant::now());
    loop {
        let silent = said.alive.map(|at| at + patience);
        tokio::select! {
            // What it has said is heard before its end is.
            biased;
            line = next_line(&mut lines), if lines.is_some() => {
                hear(line, said, &mut lines);
                if let (Some(deaths), Some(members)) = (&mut deaths, said.members.take()) {
                    deaths.follow(members);
                }
            }
            accepted = listener.accept(), if lines.is_none() => lines = Some(BufReader::new(accepted?.0).lines()),
            ended = process.wait() => {
                drain(&mut lines, said).await;
                return ended.map(End::Died);
            }
            _ = looks.tick() => {
                if looked.elapsed() > patience / 2 {
                    said.alive = said.alive.map(|_| Instant::now());
                }
                looked = Instant::now();
            }
            () = sleep_until(silent.unwrap_or_else(Instant::now)), if silent.is_some() => {
                eprintln!("madang: {} hangs; it is killed", node.name);
                process.start_kill()?;
                said.alive = None;
            }
            _ = stopping.wait_for(|stop| *stop) => {
                end(process).await;
                return Ok(End::Stopped);
            }
        }
    }
}

async fn next_line(lines: &mut Option<Lines<BufReader<UnixStream>>>) -> Option<String> {
    match lines {
        Some(lines) => lines.next_line().await.ok().flatten(),
        None => None,
    }
}

fn hear(line: Option<String>, said: &mut Said, lines: &mut Option<Lines<BufReader<UnixStream>>>) {
    match line.as_deref() {
        Some(ALIVE) => said.alive = Some(Instant::now()),
        Some(line) => {
            said.broker_epoch = line.strip_prefix(EPOCH).and_then(|epoch| epoch.parse().ok()).or(said.broker_epoch);
            said.members = line.strip_prefix(MEMBERS).and_then(members).or(said.members.take());
        }
        None => *lines = None,
    }
}

fn members(named: &str) -> Option<BTreeMap<NodeId, String>> {
    read_voters(Some(named)).ok().map(|members| members.into_iter().collect())
}

/// Hears what a dead process has said last.
async fn drain(lines: &mut Option<Lines<BufReader<UnixStream>>>, said: &mut Said) {
    while lines.is_some() {
        let line = next_line(lines).await;
        hear(line, said, lines);
    }
}

async fn end(process: &mut Child) {
    let pid = process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::TERM);
    }
    if timeout(STOP_TIMEOUT, process.wait()).await.is_err() {
        drop(process.kill().await);
    }
}
