//! The node's way from a process to a registered broker: directories, registration, recovery on several threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use madang_actors::host::clock;
use madang_actors::reply::Reply;
use madang_cluster::configs::broker_definition;
use madang_cluster::controller::actor::ControllerMessage;
use madang_cluster::controller::{LogDirStart, Outcome, Proposal, RegisterBroker};
use madang_cluster::metadata::{Endpoint, MetadataImage};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{TopicPartition, Uuid};
use madang_storage::{Identity, LogDir, LogError, Notes, OpenLogDir, PartitionDir, SledCheckpoints, TmpfsNotes};

use crate::applier::{Applier, Phase};
use crate::directory::{Directory, Opened};
use crate::found::{start_of, sync_point, sync_point_at_registration};
use crate::node_env::Node;
use crate::peers::propose_until_decided;
use crate::replicas::{Blueprint, FoundLog};

/// How long registration may take before the node gives up.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Lets a test pretend that the system was booted anew, as a power cut on a disk image keeps the running one's id.
const BOOT_ID_OVERRIDE: &str = "MADANG_TEST_BOOT_ID";

/// The running boot of the operating system.
#[must_use]
pub fn boot_id() -> String {
    std::env::var(BOOT_ID_OVERRIDE)
        .or_else(|_| std::fs::read_to_string(BOOT_ID))
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Takes every log directory. One that cannot be taken is failed; its partitions are offline.
///
/// # Errors
/// The first directory, which also holds the metadata, or all of them cannot be taken.
pub fn open_directories(applier: &Applier, image: &MetadataImage) -> Result<(), String> {
    let who = |id| OpenLogDir {
        cluster_id: image.cluster_id().to_string(),
        node_id: applier.node.config.node_id,
        new_directory_id: id,
        boot_id: boot_id(),
    };
    for (place, directory) in applier.directories.iter().enumerate() {
        let id = Uuid::from_random(applier.node.entropy.next(), applier.node.entropy.next());
        match open_one(applier, directory, &who(id)) {
            Ok(opened) => *directory.opened() = Some(opened),
            Err(why) if place == 0 => return Err(format!("{}: {why}", directory.path.display())),
            Err(why) => {
                directory.fail(&why);
            }
        }
    }
    Ok(())
}

fn open_one(applier: &Applier, directory: &Directory, who: &OpenLogDir) -> Result<Opened, String> {
    let mut log_dir =
        LogDir::open(Arc::clone(&directory.disk), &directory.path, who).map_err(|error| error.to_string())?;
    open_notes(applier, directory, log_dir.identity());
    let believed = directory.notes().is_some_and(Notes::are_believed);
    if !believed {
        log_dir.begin_notes().map_err(|error| format!("{}: {error}", directory.path.display()))?;
    }
    log_dir.noted(believed);
    let left = log_dir.restart_facts().kind();
    let is_empty = log_dir.partitions().map_err(|error| error.to_string())?.is_empty();
    if !is_empty {
        tracing::info!(directory = %directory.path.display(), restart = ?left, "log directory opened");
    }
    let path = directory.path.join("checkpoints");
    let existed = directory.disk.exists(&path).map_err(|error| error.to_string())?;
    let checkpoints = SledCheckpoints::open(&path).map_err(|error| format!("checkpoints: {error}"))?;
    let checkpoints_are_complete = is_empty || existed && !checkpoints.begun_anew();
    let checkpoints = Arc::new(checkpoints);
    Ok(Opened { log_dir, checkpoints, checkpoints_are_complete, left })
}

/// Without notes everything works; a start after a kill only reads more.
fn open_notes(applier: &Applier, directory: &Directory, identity: &Identity) {
    let Some(folder) = &applier.node.config.notes_dir else { return };
    match TmpfsNotes::open(Path::new(folder), &directory.path, identity) {
        Ok(Some(notes)) => directory.noted_in(Box::new(notes)),
        Ok(None) => tracing::info!(folder, "no notes are kept: the folder is not on tmpfs, or the kernel is too old"),
        Err(error) => tracing::warn!(folder, %error, "no notes are kept"),
    }
}

/// Proposes this node's registration; the metadata that results is applied like any other.
pub fn register(applier: &Arc<Applier>) {
    let config = &applier.node.config;
    let quic = config.quic.iter().map(|quic| &quic.advertised);
    let clients = config.advertised_listeners.iter().chain(quic).map(|listener| Endpoint {
        listener: listener.name.as_str().into(),
        host: listener.host.as_str().into(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    });
    let nodes = applier.node.peers.iter().map(|peers| peers.address().clone());
    let starts: Vec<LogDirStart> = applier
        .directories
        .iter()
        .filter_map(|directory| directory.opened().as_ref().map(|opened| start_of(&opened.log_dir, opened.left)))
        .collect();
    let proposal = Proposal::RegisterBroker(RegisterBroker {
        node_id: config.node_id,
        incarnation_id: applier.incarnation_id,
        endpoints: clients.chain(nodes).collect(),
        rack: config.rack.clone(),
        log_dirs: starts.iter().map(|start| start.directory).collect(),
        starts,
    });
    propose(applier, proposal, "registration");
}

/// Notes the registration in each directory, which keeps what else it says of itself, and only then has the node unfenced.
pub fn unfence(applier: &Arc<Applier>, broker_epoch: i64) {
    for directory in &applier.directories {
        let said = directory.opened().as_mut().map(|opened| {
            let sync_point = sync_point_at_registration(&opened.log_dir, applier.node.config.durability);
            opened.log_dir.unfenced(broker_epoch, sync_point)
        });
        if let Some(Err(error)) = said {
            directory.fail(&format!("directory's metadata: {error}"));
        }
    }
    applier.node.noted.store(true, Ordering::Release);
    if let Some(outer) = &applier.node.outer {
        outer.registered(broker_epoch);
    }
    let node_id = applier.node.config.node_id;
    propose(applier, Proposal::UnfenceBroker { node_id, broker_epoch }, "unfencing");
}

/// Proposes what the node does not start without.
fn propose(applier: &Arc<Applier>, proposal: Proposal, what: &'static str) {
    let applier = Arc::clone(applier);
    tokio::task::spawn_local(async move {
        let node = &applier.node;
        let outcome = match &node.peers {
            Some(peers) => propose_until_decided(node, peers, proposal).await.map_err(|error| error.error.to_string()),
            None => propose_here(node, proposal).await,
        };
        if let Err(why) = outcome {
            applier.phase.send_replace(Phase::Failed(format!("{what}: {why}")));
        }
    });
}

async fn propose_here(node: &Node, proposal: Proposal) -> Result<Outcome, String> {
    let (reply, answer) = Reply::new(|| Err(ErrorCode::NotController.into()));
    let deadline = clock::now() + REGISTRATION_TIMEOUT;
    let sent = node.controller.send(ControllerMessage::Propose { proposal, reply }, deadline).await;
    sent.map_err(|error| error.to_string())?;
    answer.await.map_err(|error| error.error.to_string())
}

/// Every partition folder of the open directories whose topic is known.
///
/// # Errors
/// The first directory cannot be listed.
pub fn find_partitions(applier: &Applier) -> Result<BTreeMap<TopicPartition, (Arc<Directory>, PartitionDir)>, String> {
    let mut found = BTreeMap::new();
    for directory in &applier.directories {
        let listed = match directory.opened().as_ref() {
            Some(opened) => opened.log_dir.finish_deletions().and_then(|_| opened.log_dir.partitions()),
            None => continue,
        };
        let folders = match listed {
            Ok(folders) => folders,
            Err(error) => {
                directory.fail(&error.to_string());
                continue;
            }
        };
        for folder in folders {
            match folder.topic_id {
                Some(topic_id) => {
                    let partition = TopicPartition { topic_id, partition: folder.partition };
                    found.insert(partition, (Arc::clone(directory), folder));
                }
                None => {
                    directory.has_stray();
                    tracing::warn!(path = %folder.path.display(), "folder names no topic; it is left alone");
                }
            }
        }
    }
    Ok(found)
}

/// One log to recover, and what came of it.
type Slot = Mutex<Option<(Blueprint, Option<FoundLog>)>>;

/// Each of so many logs is opened with syncs of its own; more share one of the file system, which may have to write much that is not theirs.
const FEW_LOGS: usize = 16;

/// Brings what earlier processes wrote to the device, where that saves many logs a sync each.
pub async fn sync_directories(applier: &Applier, blueprints: &[Blueprint]) {
    for directory in &applier.directories {
        let of_it = |blueprint: &&Blueprint| Arc::ptr_eq(&blueprint.directory, directory) && blueprint.is_unclean();
        if blueprints.iter().filter(of_it).count() > FEW_LOGS {
            let directory = Arc::clone(directory);
            if let Err(error) = tokio::task::spawn_blocking(move || directory.sync_all()).await {
                tracing::error!(%error, "a sync of the file system ended early");
            }
        }
    }
}

/// Recovers logs on `threads` threads. A log that cannot be recovered comes without one: its replica tries itself, and is set aside.
pub async fn recover(blueprints: Vec<Blueprint>, threads: usize) -> Vec<(Blueprint, Option<FoundLog>)> {
    let wall = clock::wall();
    let next = Arc::new(AtomicUsize::new(0));
    let work: Arc<Vec<Slot>> =
        Arc::new(blueprints.into_iter().map(|blueprint| Mutex::new(Some((blueprint, None)))).collect());
    let workers = (0..threads.clamp(1, work.len().max(1))).map(|_| {
        let (next, work) = (Arc::clone(&next), Arc::clone(&work));
        tokio::task::spawn_blocking(move || {
            while let Some(slot) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((blueprint, log)) = slot.as_mut() {
                    *log = recover_one(blueprint, wall);
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        if let Err(error) = worker.await {
            tracing::error!(%error, "a recovery thread ended early");
        }
    }
    work.iter().filter_map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).take()).collect()
}

fn recover_one(blueprint: &Blueprint, wall: madang_actors::clock::Wall) -> Option<FoundLog> {
    let partition = format!("{}-{}", blueprint.topic.name, blueprint.partition.partition);
    match blueprint.recover(wall) {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::error!(partition, %error, "not recovered");
            if matches!(error, LogError::Sync { .. }) {
                blueprint.directory.sync_failed(&format!("{partition}: {error}"));
            }
            None
        }
    }
}

/// Whether records count as stored when this node thinks so: what every node goes by is in the metadata.
///
/// # Errors
/// A text for a person.
pub fn check_durability(applier: &Applier, image: &MetadataImage) -> Result<(), String> {
    const KEY: &str = "madang.durability";
    let config = &applier.node.config;
    let own = config.value(KEY).unwrap_or_default();
    let known =
        image.default_of(KEY).map(|known| known.or_else(|| broker_definition(KEY)?.default).unwrap_or_default());
    match known {
        Some(known) if known != own => Err(format!("{KEY} is {known} in this cluster, and {own} in this node's file")),
        _ => Ok(()),
    }
}

/// Notes in each directory whether everything in it is known to be on the device from now on.
pub fn sync_points(applier: &Applier) {
    let durability = applier.node.config.durability;
    let epoch = applier.node.broker_epoch.load(Ordering::Acquire);
    for directory in &applier.directories {
        let known = directory.is_known();
        let mut opened = directory.opened();
        let Some(opened) = opened.as_mut() else { continue };
        let holds = sync_point(&opened.log_dir, durability, known) && !directory.has_failed();
        if let Err(error) = opened.log_dir.unfenced(epoch, holds) {
            directory.fail(&format!("directory's metadata: {error}"));
        }
    }
}
