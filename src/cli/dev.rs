//! `madang cluster dev`: several nodes on this machine, a process each, started again when they die.
//! Invariant: when this process ends in order, so have they.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use madang_protocol::types::NodeId;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use super::Failure;
use super::cert::new_cluster_id;
use super::start::settings;
use super::tree::page;
use crate::certificates::{Authority, QUIC_CERTIFICATE};
use crate::supervise::{self, NodeProcess};

/// How long the nodes may take until all of them serve.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Distances from a node's Kafka port.
const ADMIN: u16 = 1000;
const NODES: u16 = 2000;
const QUIC: u16 = 3000;
/// Where clients reach the nodes.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// Run a cluster of several nodes on this machine: a process and a folder each, three replicas, two of which have to be in sync.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  madang cluster dev --nodes 3 --data ./madang-dev")]
pub(crate) struct Dev {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value = "3", value_parser = ["1", "3", "5"])]
    nodes: String,
    /// Where everything is kept.
    #[arg(long, value_name = "DIR", default_value = "madang-dev")]
    data: PathBuf,
    /// The first node's Kafka port; the others have the ports after it. Their admin ports are 1000 above, those for nodes 2000.
    #[arg(long, value_name = "PORT", default_value_t = 9092)]
    base_port: u16,
    /// Serve clients over QUIC too, at UDP ports 3000 above; they trust the file `authority/ca.pem` of the data.
    #[arg(long)]
    quic: bool,
    /// Set one key of every node; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// One node's place.
#[derive(Clone, Debug)]
struct Place {
    id: u16,
    folder: PathBuf,
    kafka: u16,
}

impl Place {
    fn config(&self) -> PathBuf {
        self.folder.join("node.properties")
    }

    fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.kafka + ADMIN)
    }

    /// Where it replicates; its control endpoint is at the port after it.
    const fn nodes_port(&self, base: u16) -> u16 {
        base + NODES + 2 * (self.id - 1)
    }
}

pub(crate) fn run(args: Dev) -> Result<(), Failure> {
    let places = prepare(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(error.to_string()))?;
    LocalSet::new().block_on(&runtime, serve(places))
}

/// Writes certificates and configuration files, where there are none yet.
fn prepare(args: &Dev) -> Result<Vec<Place>, Failure> {
    let count: u16 = args.nodes.parse().map_err(|_| Failure::new("--nodes: not a number"))?;
    if args.base_port.checked_add(QUIC + count).is_none() {
        return Err(
            Failure::new(format!("--base-port {}: no room above it", args.base_port)).try_this("--base-port 9092")
        );
    }
    let authority = args.data.join("authority");
    let authority = if authority.join("ca.key").exists() {
        Authority::open(&authority)
    } else {
        Authority::create(&authority, new_cluster_id())
    };
    let authority = authority.map_err(Failure::new)?;
    let places: Vec<Place> = (1..=count)
        .map(|id| Place { id, folder: args.data.join(format!("node-{id}")), kafka: args.base_port + id - 1 })
        .collect();
    let voters: Vec<String> =
        places.iter().map(|place| format!("{}@127.0.0.1:{}", place.id, place.nodes_port(args.base_port) + 1)).collect();
    for place in &places {
        let certificates = place.folder.join("certificates");
        if !certificates.exists() {
            authority.issue(NodeId(place.id.into()), &certificates).map_err(Failure::new)?;
        }
        if args.quic && !certificates.join(QUIC_CERTIFICATE).exists() {
            authority.issue_for_clients(&HOSTS.map(str::to_owned), &certificates).map_err(Failure::new)?;
        }
        let text = configuration(args, place, &voters.join(","), count);
        fs::write(place.config(), text)
            .map_err(|error| Failure::new(format!("{}: {error}", place.config().display())))?;
    }
    Ok(places)
}

fn configuration(args: &Dev, place: &Place, voters: &str, count: u16) -> String {
    let (id, folder) = (place.id, place.folder.display());
    let min_in_sync = if count > 1 { 2 } else { 1 };
    let mut text = format!(
        "node.id={id}\n\
         listeners=PLAINTEXT://127.0.0.1:{}\n\
         madang.admin.listener={}\n\
         madang.node.listener=127.0.0.1:{}\n\
         madang.node.certificates={folder}/certificates\n\
         controller.quorum.voters={voters}\n\
         log.dirs={folder}/data\n\
         broker.rack=rack-{id}\n\
         default.replication.factor={}\n\
         min.insync.replicas={min_in_sync}\n",
        place.kafka,
        place.admin(),
        place.nodes_port(args.base_port),
        count.min(3),
    );
    if args.quic {
        text.push_str(&format!("madang.quic.listener=127.0.0.1:{}\n", place.kafka + QUIC));
    }
    for setting in &args.settings {
        text.push_str(setting);
        text.push('\n');
    }
    text
}

async fn serve(places: Vec<Place>) -> Result<(), Failure> {
    let (stop, stopping) = watch::channel(false);
    let mut nodes = JoinSet::new();
    for place in &places {
        nodes.spawn_local(keep(place.clone(), stopping.clone()));
    }
    let signals = async {
        let failed = |error| Failure::new(format!("signals: {error}"));
        let terminate = tokio::signal::unix::SignalKind::terminate();
        let mut terminated = tokio::signal::unix::signal(terminate).map_err(failed)?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed.map_err(failed),
            _ = terminated.recv() => Ok(()),
        }
    };
    let outcome = tokio::select! {
        outcome = async {
            announce(&places).await?;
            std::future::pending::<Result<(), Failure>>().await
        } => outcome,
        ended = signals => ended,
        () = async { while nodes.join_next().await.is_some() {} } => {
            Err(Failure::new("no node is left").try_this("the ends of the files node.log in the nodes' folders"))
        }
    };
    stop.send_replace(true);
    while nodes.join_next().await.is_some() {}
    println!("stopped");
    outcome
}

/// Waits until all of them serve, and says where.
async fn announce(places: &[Place]) -> Result<(), Failure> {
    let begun = Instant::now();
    for place in places {
        while !page(&place.admin(), "/health").await.is_ok_and(|answer| answer.status == 200) {
            if begun.elapsed() > START_TIMEOUT {
                let log = place.folder.join("node.log");
                return Err(Failure::new(format!("node {} does not serve", place.id))
                    .try_this(format!("the end of {}", log.display())));
            }
            sleep(LOOK_AGAIN).await;
        }
    }
    println!("{} nodes serve after {} ms", places.len(), begun.elapsed().as_millis());
    for place in places {
        println!(
            "  node {}  Kafka 127.0.0.1:{}  admin http://{}  {}",
            place.id,
            place.kafka,
            place.admin(),
            place.folder.display()
        );
    }
    let servers: Vec<String> = places.iter().map(|place| format!("127.0.0.1:{}", place.kafka)).collect();
    println!("Next, in another terminal:");
    println!("  madang cluster status --server {}", servers[0]);
    println!("  echo hello | madang produce greetings --server {}", servers[0]);
    Ok(())
}

/// Runs one node until it is to stop, and again whenever it dies.
async fn keep(place: Place, stopping: watch::Receiver<bool>) {
    let path = place.config();
    let process = NodeProcess {
        name: format!("node {}", place.id),
        arguments: vec!["start".into(), "--config".into(), path.clone().into()],
        output: Some(place.folder.join("node.log")),
        config: match settings(&path) {
            Ok(config) => config,
            Err(failure) => return eprintln!("madang: node {}: {}", place.id, failure.what),
        },
        always: true,
    };
    if let Err(why) = supervise::run(process, stopping).await {
        eprintln!("madang: {why}");
    }
}
