//! Partitions that begin on this node: their folders, their logs, their replicas.
//! Invariant: a replica starts only in a folder that is on the device and says whose it is.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{Applier, add};
use crate::boot;
use crate::changes::ReplicaPlan;
use crate::directory::Directory;
use crate::replicas::Blueprint;

/// Threads that make and open new partitions: what they wait for are syncs, many of which the disk does at once.
const CREATION_THREADS: usize = 16;
impl Applier {
    /// Starts new partitions of one topic. Their folders and logs are made beside this thread, many at a time, and the replicas start together:
    /// the controller goes on meanwhile, and a topic of many partitions waits for few syncs in a row.
    pub(super) async fn start_replicas(&self, plans: Vec<ReplicaPlan>) {
        let mut blueprints = Vec::new();
        for (directory, plans) in self.spread(plans) {
            blueprints.extend(self.new_blueprints(&directory, plans).await);
        }
        let mut adding = Vec::new();
        for (blueprint, log) in boot::recover(blueprints, CREATION_THREADS).await {
            let partition = blueprint.partition;
            let held = Arc::new(blueprint.build(log));
            self.node.replicas.insert(partition, Arc::clone(&held));
            adding.push(async move { add(&held).await });
        }
        join_all(adding).await;
    }

    /// Makes the folders of new partitions in one directory.
    async fn new_blueprints(&self, directory: &Arc<Directory>, mut plans: Vec<ReplicaPlan>) -> Vec<Blueprint> {
        let Some(folders) = directory.opened().as_ref().map(|opened| opened.log_dir.folders()) else {
            return Vec::new();
        };
        let share = plans.len().div_ceil(CREATION_THREADS).max(1);
        let mut making = Vec::new();
        while !plans.is_empty() {
            let some = plans.split_off(plans.len().saturating_sub(share));
            let wanted: Vec<i32> = some.iter().map(|plan| plan.partition.partition).collect();
            let (folders, topic) = (folders.clone(), some.first().map(|plan| Arc::clone(&plan.topic)));
            let make = move || topic.map(|topic| folders.create(&topic.name, &wanted, topic.topic_id));
            making.push((some, tokio::task::spawn_blocking(make)));
        }
        let mut blueprints = Vec::new();
        for (plans, made) in making {
            let made = made.await.ok().flatten().unwrap_or_default();
            for (plan, made) in plans.into_iter().zip(made) {
                match made {
                    Ok(path) => {
                        let home = (Arc::clone(directory), path);
                        blueprints.push(Blueprint { is_new: true, ..self.blueprint(plan, home) });
                    }
                    Err(why) => {
                        let (partition, topic) = (plan.partition, &plan.topic.name);
                        tracing::error!(%partition, %topic, %why, "partition stays offline");
                    }
                }
            }
        }
        blueprints
    }

    /// Which directory each new partition goes to: the one that then has the fewest replicas.
    fn spread(&self, plans: Vec<ReplicaPlan>) -> Vec<(Arc<Directory>, Vec<ReplicaPlan>)> {
        let usable = self.directories.iter().filter(|directory| !directory.has_failed());
        let counted = usable.map(|directory| (self.node.replicas.within(&directory.path).len(), directory));
        let mut homes: Vec<_> = counted.map(|(held, directory)| (held, Arc::clone(directory), Vec::new())).collect();
        for plan in plans {
            match homes.iter_mut().min_by_key(|(held, _, new)| *held + new.len()) {
                Some((_, _, new)) => new.push(plan),
                None => {
                    tracing::error!(partition = %plan.partition, "partition stays offline: every log directory has failed");
                }
            }
        }
        homes.into_iter().filter(|(_, _, new)| !new.is_empty()).map(|(_, directory, new)| (directory, new)).collect()
    }
}
