//! Offsets of a group that is used by name alone: no member joins, the caller assigns the partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Consumer, StartAt};
use crate::admin::CommittedOffset;
use crate::backoff::Backoff;
use crate::error::GroupError;
use crate::group::{Committed, Coordinator, Identified};

/// The coordinator of the group that was used last.
#[derive(Debug)]
pub(super) struct OfGroup {
    group: String,
    coordinator: Coordinator,
}

impl Consumer {
    fn of_group(&mut self, group: &str) -> &Coordinator {
        let found = self.coordinator.take().filter(|found| found.group == group);
        let made = || OfGroup { group: group.to_owned(), coordinator: Coordinator::new(self.client.clone(), group) };
        let found = found.unwrap_or_else(made);
        &self.coordinator.insert(found).coordinator
    }

    /// Reads these partitions of a topic, in addition to what is read already, from where `group` has committed; from `otherwise` where it has not.
    ///
    /// # Errors
    /// [`GroupError`] if the topic or the offsets cannot be found.
    pub async fn assign_committed(
        &mut self,
        group: &str,
        topic: &str,
        partitions: &[i32],
        otherwise: StartAt,
    ) -> Result<(), GroupError> {
        let asked = BTreeMap::from([(topic.to_owned(), partitions.to_vec())]);
        self.client.usable_metadata(&[topic], false).await?;
        let mut backoff = Backoff::within(self.client.config().retry_timeout);
        let coordinator = self.of_group(group);
        let committed = loop {
            match coordinator.fetch_offsets(Some(&asked)).await {
                Err(error) if error.is_retriable() && backoff.wait().await => {}
                outcome => break outcome?,
            }
        };
        let missing = |partition: &i32| !committed.contains_key(&(topic.to_owned(), *partition));
        let missing: Vec<i32> = partitions.iter().copied().filter(missing).collect();
        let mut starts = BTreeMap::new();
        if !missing.is_empty() {
            let asked = BTreeMap::from([(topic.to_owned(), missing)]);
            starts = self.start_offsets(&asked, otherwise).await?;
        }
        starts.extend(committed.into_iter().map(|(key, found)| (key, found.offset)));
        let topic: Arc<str> = topic.into();
        for ((_, partition), offset) in starts {
            self.assign_partition(&topic, partition, offset);
        }
        Ok(())
    }

    /// Commits the positions behind all records returned so far for `group`, which must have no members. `metadata` is kept beside them.
    ///
    /// # Errors
    /// [`GroupError`], with `UNKNOWN_MEMBER_ID` while the group has members.
    pub async fn commit_as(&mut self, group: &str, metadata: &str) -> Result<(), GroupError> {
        let mut offsets = Committed::new();
        for (topic, partition, offset) in self.positions() {
            let committed = CommittedOffset { offset, metadata: metadata.to_owned() };
            offsets.insert((topic.to_owned(), partition), committed);
        }
        let mut backoff = Backoff::within(self.client.config().retry_timeout);
        let coordinator = self.of_group(group);
        loop {
            match coordinator.commit(&Identified::NOBODY, &offsets).await {
                Err(error @ GroupError::Broker { code, .. }) if !code.is_retriable() => return Err(error),
                Err(error) if error.is_retriable() && backoff.wait().await => {}
                outcome => return outcome,
            }
        }
    }
}
