//! What happens to a whole log directory while no process has it: it is emptied, or it is as it was once. The metadata log stays: a voter that
//! has lost its vote is no voter.
//! Invariant: whoever does this has seen to it that the node's process is dead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use madang_protocol::types::TopicPartition;
use madang_storage::{Checkpoint, Disk, OpenMode};

use crate::history::PartitionHistory;
use crate::invariants::restarts::Truth;
use crate::node::{DATA, Node};

/// A directory as it was once.
pub struct Backup {
    files: Vec<(PathBuf, Vec<u8>)>,
    checkpoints: BTreeMap<TopicPartition, Checkpoint>,
    partitions: BTreeMap<TopicPartition, PartitionHistory>,
    truth: Truth,
}

/// Every file below `folder` but the metadata log's.
fn files(disk: &dyn Disk, folder: &Path, found: &mut Vec<PathBuf>) {
    for name in disk.list(folder).unwrap_or_default() {
        let path = folder.join(&name);
        if name == "metadata" {
            continue;
        }
        if disk.list(&path).is_ok() {
            files(disk, &path, found);
        } else {
            found.push(path);
        }
    }
}

fn read(disk: &dyn Disk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path, OpenMode::Existing).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
    let read = file.read_at(0, &mut bytes).ok()?;
    bytes.truncate(read);
    Some(bytes)
}

/// Keeps a copy of a dead node's directory, if nothing of it is in doubt.
pub fn back_up(node: &Node) {
    let partitions = node.sim.history.borrow().partitions.clone();
    let Some(truth) = node.truth.certain() else { return };
    if partitions.values().any(|known| known.suspect) {
        return;
    }
    let (disk, mut found) = (&node.sim.disk, Vec::new());
    files(disk, Path::new(DATA), &mut found);
    let files = found.into_iter().filter_map(|path| Some((path.clone(), read(disk, &path)?))).collect();
    let checkpoints = node.checkpoints.borrow().clone();
    *node.backup.borrow_mut() = Some(Backup { files, checkpoints, partitions, truth });
}

/// Empties a dead node's directory.
pub fn wipe(node: &Node) {
    let disk = &node.sim.disk;
    for name in disk.list(Path::new(DATA)).unwrap_or_default() {
        let path = Path::new(DATA).join(&name);
        if name != "metadata" {
            let gone = if disk.list(&path).is_ok() { disk.remove_dir_all(&path) } else { disk.remove_file(&path) };
            node.sim.require(gone.is_ok(), "SWARM", || format!("{} stays: {gone:?}", path.display()));
        }
    }
    disk.settle();
    node.checkpoints.borrow_mut().clear();
    node.sim.history.borrow_mut().partitions.clear();
    node.memory.file.replace(None);
    node.truth.is(&Truth::default());
    node.doubt();
}

/// Puts the copy back; false if there is none.
pub fn restore(node: &Node) -> bool {
    let Some(backup) = node.backup.borrow_mut().take() else { return false };
    wipe(node);
    let disk = &node.sim.disk;
    for (path, bytes) in &backup.files {
        if let Some(folder) = path.parent().filter(|folder| disk.list(folder).is_err()) {
            let made = disk.create_dir(folder);
            node.sim.require(made.is_ok(), "SWARM", || format!("{}: {made:?}", folder.display()));
        }
        let written =
            disk.open(path, OpenMode::Create).and_then(|file| file.write_at(0, &[std::io::IoSlice::new(bytes)]));
        node.sim.require(written.is_ok(), "SWARM", || format!("{}: {written:?}", path.display()));
    }
    disk.settle();
    *node.checkpoints.borrow_mut() = backup.checkpoints;
    node.sim.history.borrow_mut().partitions = backup.partitions;
    node.truth.is(&backup.truth);
    node.truth.notes_gone();
    true
}
