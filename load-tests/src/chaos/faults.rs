//! The faults: how each is done, how it is undone, and how one knows that it happened.
//! Invariant: `heal` undoes what `strike` did, also if the fault did not take.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use madang_actors::prng::Prng;
use rustix::process::Signal;

use super::cluster::{Cluster, Node, poll};
use super::links::Rule;

/// How long a process may take to die, a node to be fenced, a planted panic to strike.
const PATIENCE: Duration = Duration::from_secs(30);
const NOISE: Rule = Rule { cut: false, lost: 50, doubled: 20, delay: Duration::from_millis(20) };
/// What a node logs of a panic that was planted, of a segment with another byte, of a directory that it gives up.
const PLANTED: &str = "planted: ";
const DAMAGED: &str = "is damaged at offset";
const GIVEN_UP: &str = "log directory failed";
const CUT: Rule = Rule { cut: true, lost: 0, doubled: 0, delay: Duration::ZERO };

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Fault {
    /// `kill -9` of one node.
    Kill,
    /// `kill -9` of the node that controls.
    KillController,
    /// `kill -9` of all nodes at once.
    KillAll,
    /// An orderly end of one node, which is then started again.
    Stop,
    /// One node hangs (SIGSTOP), and its supervisor kills it.
    Freeze,
    /// One node and its supervisor hang until others have taken over, and go on then.
    Zombie,
    /// The power of one node is cut.
    PowerCut,
    /// The power of all nodes is cut at once.
    PowerCutAll,
    /// One node's disk is full.
    FullDisk,
    /// One node's disk does not answer.
    SlowDisk,
    /// One node's disk fails every write.
    DiskError,
    /// A byte of one node's segments is another one when it starts after a power cut.
    Corrupt,
    /// One of a node's two log directories comes back empty.
    Wipe,
    /// Actors of one node panic. Needs a build with the feature `failpoints`.
    Panic,
    /// Nothing gets from one node to another.
    CutOneWay,
    /// Nothing gets from one node to the others, nor back.
    CutTwoWay,
    /// Every link between nodes loses, doubles, delays and reorders.
    Noise,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Happened,
    Skipped(String),
    /// It may have happened.
    Unsure(String),
}

/// A fault that was struck.
pub(crate) struct Struck {
    pub(crate) fault: Fault,
    /// Place of the node that it is about.
    victim: usize,
    /// The process that was the node before.
    process: Option<u32>,
    /// When it was struck; when there was power again, if all were without.
    pub(crate) began: Instant,
    /// From when on it was there: only what is sent after it has met it.
    pub(crate) there: Instant,
    /// Of a cut link: the place of the node that hears nothing.
    other: usize,
    /// How often the node's log told of this before, and of a directory given up.
    planted: usize,
    given_up: usize,
    /// The partition's folder, if a segment was altered.
    damaged: Option<PathBuf>,
    outcome: Outcome,
}

impl Fault {
    /// All of them.
    pub(crate) fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// How long it lasts at most, if it lasts until every partition is written to again.
    pub(crate) const fn holds(self) -> Duration {
        match self {
            // A directory whose thread is stuck for 10 s is given up until the next start.
            Self::SlowDisk => Duration::from_secs(4),
            _ => Duration::from_secs(12),
        }
    }

    /// Whether it needs disks of the nodes' own.
    pub(crate) const fn needs_disks(self) -> bool {
        matches!(
            self,
            Self::PowerCut | Self::PowerCutAll | Self::FullDisk | Self::SlowDisk | Self::DiskError | Self::Corrupt
        )
    }

    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Does it, to the node at the place `node` if it is about one node that need not be another.
    ///
    /// # Errors
    /// The run cannot go on.
    pub(crate) fn strike(
        self,
        cluster: &mut Cluster,
        topic: &str,
        node: Option<usize>,
        rng: &mut Prng,
    ) -> Result<Struck, String> {
        let many = cluster.nodes.len() as u64;
        // The controller more often than others: it leads and decides.
        let always = self == Self::KillController;
        let controller = cluster.controller().filter(|_| rng.chance(1, 3) || always).map(|id| usize::from(id) - 1);
        if always && controller.is_none() {
            return Err("nobody is known to control".to_owned());
        }
        let victim = node.filter(|_| !always).or(controller).unwrap_or_else(|| rng.below(many) as usize);
        let other = (victim + 1 + rng.below(many - 1) as usize) % cluster.nodes.len();
        let node = &cluster.nodes[victim];
        let told = if matches!(self, Self::Corrupt) { DAMAGED } else { PLANTED };
        let (process, planted) = (node.process(), node.log().matches(told).count());
        let given_up = node.log().matches(GIVEN_UP).count();
        let mut struck = Struck {
            fault: self,
            victim,
            process,
            began: Instant::now(),
            there: Instant::now(),
            other,
            planted,
            given_up,
            damaged: None,
            outcome: Outcome::Happened,
        };
        let took = match self {
            Self::Kill | Self::KillController => node.signal(Signal::KILL),
            Self::KillAll => {
                cluster.nodes.iter().filter(|node| node.signal(Signal::KILL)).count() == cluster.nodes.len()
            }
            Self::Stop => node.signal(Signal::TERM),
            Self::Freeze => node.signal(Signal::STOP),
            Self::Zombie => node.signal_supervisor(Signal::STOP) && node.signal(Signal::STOP),
            Self::PowerCut => cut_power(cluster, &[victim])?,
            Self::PowerCutAll => cut_power(cluster, &(0..cluster.nodes.len()).collect::<Vec<_>>())?,
            Self::FullDisk => disk(node)?.fill().map(|()| true)?,
            Self::SlowDisk => cluster.nodes[victim].disk.as_mut().ok_or("no disk")?.freeze().map(|()| true)?,
            Self::DiskError => disk(node)?.damage().map(|()| true)?,
            Self::Corrupt => {
                struck.damaged = corrupt(&mut cluster.nodes[victim], topic, rng)?;
                struck.damaged.is_some()
            }
            Self::Wipe => {
                let folder = node.data().join("b");
                let killed = cluster.nodes[victim].kill();
                fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
                killed
            }
            Self::Panic => plant(node, topic, rng)?,
            Self::CutOneWay => {
                cluster.proxy.set(number(victim), number(other), CUT);
                true
            }
            Self::CutTwoWay => link_all(cluster, CUT, |from, to| from == victim || to == victim),
            Self::Noise => link_all(cluster, NOISE, |_, _| true),
        };
        if !took {
            struck.outcome = Outcome::Skipped(format!("node {} was not there to be struck", victim + 1));
        }
        struck.there = Instant::now();
        if self == Self::PowerCutAll {
            struck.began = struck.there;
        }
        // What was killed with its supervisor is started anew by whoever started that.
        if !matches!(self, Self::Stop) {
            cluster.start_what_ended()?;
        }
        Ok(struck)
    }
}

impl Struck {
    /// The node that it is about, or the link.
    pub(crate) fn of(&self) -> String {
        match self.fault {
            Fault::KillAll | Fault::PowerCutAll | Fault::Noise => "all nodes".to_owned(),
            Fault::CutOneWay => format!("node {} to node {}", self.victim + 1, self.other + 1),
            _ => format!("node {}", self.victim + 1),
        }
    }

    /// Undoes it, and says whether it happened.
    ///
    /// # Errors
    /// The run cannot go on.
    pub(crate) fn heal(self, cluster: &mut Cluster) -> Result<Outcome, String> {
        let node = &mut cluster.nodes[self.victim];
        let mut happened = true;
        match self.fault {
            Fault::Kill
            | Fault::KillController
            | Fault::KillAll
            | Fault::PowerCut
            | Fault::PowerCutAll
            | Fault::Wipe => {}
            Fault::Corrupt => {
                happened = poll(PATIENCE, || node.log().matches(DAMAGED).count() > self.planted);
                // The replica is set aside. Whoever runs the node takes its files away, so that it gets them anew from the others.
                if let Some(folder) = self.damaged {
                    node.kill();
                    fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
                }
            }
            Fault::Stop => happened = poll(PATIENCE, || node.process().is_none()),
            Fault::Freeze => happened = poll(PATIENCE, || node.process().is_none_or(|now| Some(now) != self.process)),
            Fault::Zombie => {
                let id = u64::from(number(self.victim));
                let others: Vec<&Node> = cluster.nodes.iter().filter(|node| u64::from(node.id) != id).collect();
                happened = poll(PATIENCE, || others.iter().any(|node| sees_fenced(node, id)));
                let node = &cluster.nodes[self.victim];
                // The node first, so that it goes on as what it was.
                node.signal(Signal::CONT);
                node.signal_supervisor(Signal::CONT);
            }
            Fault::FullDisk => disk(node)?.empty()?,
            Fault::SlowDisk => {
                node.disk.as_mut().ok_or("no disk")?.thaw()?;
                // What was given up is taken up by the next start, as an operator would start it.
                if node.log().matches(GIVEN_UP).count() > self.given_up {
                    node.kill();
                }
            }
            Fault::DiskError => {
                node.kill();
                node.disk.as_mut().ok_or("no disk")?.mend()?;
            }
            Fault::Panic => {
                happened = poll(PATIENCE, || node.log().matches(PLANTED).count() > self.planted);
                forget(node)?;
            }
            Fault::CutOneWay | Fault::CutTwoWay | Fault::Noise => {
                let (from, to) = (number(self.victim), number(self.other));
                happened = poll(PATIENCE, || cluster.proxy.lost(from, to) > 0);
                cluster.proxy.heal();
            }
        }
        cluster.start_what_ended()?;
        Ok(match (self.outcome, happened) {
            (Outcome::Happened, false) if self.fault == Fault::Panic => {
                Outcome::Skipped("nothing was planted: is the binary built with the feature failpoints?".to_owned())
            }
            (Outcome::Happened, false) => Outcome::Unsure("it was not seen to have happened".to_owned()),
            (outcome, _) => outcome,
        })
    }
}

fn number(place: usize) -> u8 {
    u8::try_from(place).unwrap_or(0) + 1
}

fn disk(node: &Node) -> Result<&super::disk::Disk, String> {
    node.disk.as_ref().ok_or_else(|| "no disk".to_owned())
}

fn sees_fenced(node: &Node, id: u64) -> bool {
    let page = node.page("/cluster");
    let nodes = page.as_ref().and_then(|page| page["nodes"].as_array()).into_iter().flatten();
    nodes.into_iter().any(|one| one["id"] == id && one["state"] == "fenced")
}

/// All at once: every process is stopped before the first disk is copied.
fn cut_power(cluster: &mut Cluster, places: &[usize]) -> Result<bool, String> {
    for place in places {
        cluster.nodes[*place].signal_supervisor(Signal::STOP);
        cluster.nodes[*place].signal(Signal::STOP);
    }
    let mut killed = true;
    for place in places {
        let node = &mut cluster.nodes[*place];
        killed &= node.kill();
        node.disk.as_mut().ok_or("no disk")?.cut_power()?;
        node.boots += 1;
    }
    Ok(killed)
}

/// Sets the links between any two nodes that are picked by their places.
fn link_all(cluster: &Cluster, rule: Rule, picked: impl Fn(usize, usize) -> bool) -> bool {
    let many = cluster.nodes.len();
    let pairs = (0..many * many).map(|pair| (pair / many, pair % many));
    for (from, to) in pairs.filter(|(from, to)| from != to && picked(*from, *to)) {
        cluster.proxy.set(number(from), number(to), rule);
    }
    true
}

/// Kills the node and alters one of its segments, as if its machine had booted since. Answers the partition's folder; none if nothing is long enough.
fn corrupt(node: &mut Node, topic: &str, rng: &mut Prng) -> Result<Option<PathBuf>, String> {
    let killed = node.kill();
    node.boots += 1;
    let Some(path) = segment(node, topic).filter(|_| killed) else { return Ok(None) };
    flip(&path, rng)?;
    Ok(path.parent().map(Path::to_owned))
}

/// The longest last segment of the topic's partitions on this node.
fn segment(node: &Node, topic: &str) -> Option<PathBuf> {
    let folders = ["a", "b"].into_iter().filter_map(|folder| fs::read_dir(node.data().join(folder)).ok());
    let partitions = folders.flatten().flatten().map(|entry| entry.path());
    let of_topic = partitions.filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&format!("{topic}-")))
    });
    let last = |partition: PathBuf| {
        let files = fs::read_dir(partition).ok()?.flatten().map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max()
    };
    let length = |path: &PathBuf| fs::metadata(path).map_or(0, |data| data.len());
    of_topic.filter_map(last).max_by_key(length).filter(|path| length(path) > 1_000)
}

/// Another byte somewhere in the first half, where it was written and synced long ago.
fn flip(path: &Path, rng: &mut Prng) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let bytes = fs::read(path).map_err(failed)?;
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
    let at = rng.below(written / 2);
    let mut file = fs::File::options().write(true).open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(at)).map_err(failed)?;
    file.write_all(&[bytes[at as usize] ^ 0x55]).and_then(|()| file.sync_all()).map_err(failed)
}

/// A replica of the load, or what else the node has.
fn plant(node: &Node, topic: &str, rng: &mut Prng) -> Result<bool, String> {
    let replica = format!("node/log_dirs/directory-*/replicas/{topic}-*");
    let cases = [&*replica, "node/metadata/*", "node/log_dirs/directory-*/flusher"];
    let actor = cases[rng.below(3) as usize];
    let mut plan = fs::File::options().append(true).open(node.plan()).map_err(|error| error.to_string())?;
    writeln!(plan, "{actor} * {} panic", 1 + rng.below(20)).map_err(|error| error.to_string())?;
    Ok(true)
}

/// What was planted is not planted again at the next start. The lines stay as long as they are, for whoever reads on in the file.
fn forget(node: &Node) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", node.plan().display());
    let plan = fs::read_to_string(node.plan()).map_err(failed)?;
    let nobody = |line: &str| {
        let (actor, rest) = line.split_once(' ').unwrap_or((line, ""));
        format!("{} {rest}\n", "-".repeat(actor.len()))
    };
    let plan: String = plan.lines().map(nobody).collect();
    let mut file = fs::File::options().write(true).open(node.plan()).map_err(failed)?;
    file.write_all(plan.as_bytes()).map_err(failed)
}
