//! The follower's side of replication: where its log parts from the leader's, and what it tells the leader of its durable end.
//! Invariant: nothing is confirmed to a leader before one fetch of its epoch has found that the two logs agree.

use madang_protocol::types::{LeaderEpoch, NodeId, Offset};
use madang_storage::{Log, mutants::mutant};

use super::replication::{FetchPosition, Known};

/// One followed leadership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Follower {
    /// None while nobody leads.
    leader: Option<NodeId>,
    epoch: LeaderEpoch,
    /// Whether the leader has served a fetch: up to its end the log is then the leader's.
    agrees: bool,
    /// The leader's high watermark, as last heard.
    leader_high_watermark: Offset,
    /// What the leader has told, since the logs were found to agree.
    known: Option<Known>,
    /// The durable end that the leader was last told.
    told: Offset,
    /// A cut that waits for the recovery point to be lowered: its number, and where.
    cutting: Option<(u64, Offset)>,
}

impl Follower {
    pub(super) const fn new(leader: Option<NodeId>, epoch: LeaderEpoch) -> Self {
        Self {
            leader,
            epoch,
            agrees: false,
            leader_high_watermark: Offset::ZERO,
            known: None,
            told: Offset::NONE,
            cutting: None,
        }
    }

    pub(super) const fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    pub(super) const fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    pub(super) const fn leader_high_watermark(&self) -> Offset {
        self.leader_high_watermark
    }

    /// The leader has served a fetch.
    pub(super) fn served(&mut self, high_watermark: Offset) {
        self.agrees = true;
        self.leader_high_watermark = self.leader_high_watermark.max(high_watermark);
    }

    /// All that the leader has told of itself holds here too: it need not say so again.
    pub(super) const fn knows(&mut self, known: Known) {
        self.known = Some(known);
    }

    /// The log is to be cut: whether it is the leader's then, the next fetch says.
    pub(super) const fn begin_cut(&mut self, number: u64, to: Offset) {
        self.agrees = false;
        self.known = None;
        self.cutting = Some((number, to));
    }

    /// Where the log is to be cut.
    pub(super) fn cutting(&self) -> Option<Offset> {
        self.cutting.map(|(_, to)| to)
    }

    /// The cut of that number may be made, unless it was given up.
    pub(super) fn end_cut(&mut self, number: u64) -> Option<Offset> {
        let (_, to) = self.cutting.take_if(|(known, _)| *known == number)?;
        Some(to)
    }

    /// What to fetch next; a fetch tells the durable end too.
    pub(super) fn next_fetch(&mut self, log: &Log, incarnation: u64, after_error: bool) -> Option<FetchPosition> {
        let leader = self.leader.filter(|_| self.cutting.is_none() && log.is_settled())?;
        self.told = log.confirmed_offset();
        Some(FetchPosition {
            leader,
            leader_epoch: self.epoch,
            incarnation,
            fetch_offset: log.log_end_offset(),
            last_fetched_epoch: last_epoch(log),
            confirmed_offset: if mutant(66) { log.log_end_offset() } else { log.confirmed_offset() },
            known: self.known,
            after_error,
        })
    }

    /// The leader, if it has to be told of a durable end that moved since the last fetch.
    pub(super) fn tell(&mut self, confirmed: Offset) -> Option<NodeId> {
        if !self.agrees || confirmed <= self.told {
            return None;
        }
        self.told = confirmed;
        self.leader
    }
}

/// The epoch of the log's last record, or one that has begun since and written nothing.
fn last_epoch(log: &Log) -> LeaderEpoch {
    log.leader_epochs().latest().map_or(LeaderEpoch::NONE, |last| last.epoch)
}

/// Where to cut a log that parts from its leader's: the leader's largest epoch that is not above this log's last one is `epoch`, and it
/// ends at `end_offset` there. Each step leaves an older last epoch or a lower end, so asking again comes to an end.
pub(super) fn cut_at(log: &Log, epoch: LeaderEpoch, end_offset: Offset, high_watermark: Offset) -> Offset {
    if mutant(1) {
        return high_watermark;
    }
    let log_end = log.log_end_offset();
    match log.leader_epochs().end_offset_for(epoch, log_end) {
        Some((own_epoch, own_end)) if own_epoch == epoch => own_end.min(end_offset).min(log_end),
        // This log never had that epoch: what follows the one before it is not the leader's either.
        Some((_, own_end)) => own_end.min(log_end),
        None => end_offset.min(log_end),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use madang_actors::clock::Wall;
    use madang_protocol::record_batch::{BatchBuilder, BatchOptions};
    use madang_storage::{BatchToAppend, Disk, FaultDisk, LogConfig, OpenLog};

    use super::*;

    /// A log with one record for each number, which is its epoch.
    fn log(epochs: &[i32]) -> Log {
        let disk = FaultDisk::new();
        disk.create_dir(Path::new("/data")).expect("creates");
        let opened = Log::open(Arc::new(disk), Path::new("/data/orders-0"), LogConfig::default(), &OpenLog::default());
        let (mut log, _) = opened.expect("opens");
        for epoch in epochs {
            let mut builder = BatchBuilder::new(BatchOptions::default());
            builder.append(0, None, Some(&[7; 20]), &[]).expect("fits");
            let batch = BatchToAppend::new(builder.build().expect("a batch")).expect("a whole batch");
            log.append_as_leader(&[batch], LeaderEpoch(*epoch), Wall(0)).expect("appends");
        }
        log
    }

    /// Cuts `follower` as often as `leader`, which leads in an epoch of its own, tells it to; answers where it ends and in how many steps.
    fn reconcile(leader: &[i32], follower: &[i32]) -> (i64, usize) {
        let (mut leader, mut follower) = (log(leader), log(follower));
        leader.begin_epoch(LeaderEpoch(9)).expect("begins");
        for step in 0..10 {
            let end = follower.log_end_offset();
            let last = last_epoch(&follower);
            let known = leader.leader_epochs().end_offset_for(last, leader.log_end_offset());
            match known {
                Some((epoch, end_offset)) if last > LeaderEpoch::NONE && (epoch < last || end_offset < end) => {
                    let cut = cut_at(&follower, epoch, end_offset, Offset::ZERO);
                    follower.truncate_to(cut).expect("cuts");
                }
                _ => return (end.0, step),
            }
        }
        panic!("they never agree");
    }

    #[test]
    fn case_a_a_follower_that_is_merely_behind_is_not_cut() {
        assert_eq!(reconcile(&[1, 1, 2, 2], &[1, 1, 2]), (3, 0));
        assert_eq!(reconcile(&[1, 1], &[]), (0, 0));
    }

    #[test]
    fn case_b_a_longer_log_of_the_same_epoch_is_cut_to_the_leaders_end_of_it() {
        assert_eq!(reconcile(&[1, 1, 3], &[1, 1, 1, 1]), (2, 1));
        assert_eq!(reconcile(&[1, 1], &[1, 1, 1]), (2, 1));
    }

    #[test]
    fn case_c_an_epoch_that_the_leader_never_had_goes_whole() {
        assert_eq!(reconcile(&[1, 1, 3, 3], &[1, 1, 2, 2, 2]), (2, 1));
    }

    #[test]
    fn case_d_a_newer_epoch_above_a_longer_old_one_takes_one_cut_to_the_common_end() {
        // The fast double failover: the follower has epoch 2 where the leader still has 1.
        assert_eq!(reconcile(&[1, 1, 1, 3], &[1, 2, 2]), (1, 1));
    }

    #[test]
    fn case_e_epochs_that_alternate_take_a_step_each() {
        assert_eq!(reconcile(&[1, 3, 5, 7], &[1, 2, 4, 6]), (1, 3));
        assert_eq!(reconcile(&[1, 3, 3, 3], &[1, 1, 1, 2]), (1, 1));
    }

    #[test]
    fn case_f_a_log_with_nothing_in_common_goes_to_its_start() {
        assert_eq!(reconcile(&[5, 5], &[1, 1]), (0, 1));
        assert_eq!(reconcile(&[], &[1, 1]), (0, 1));
    }

    #[test]
    fn case_g_an_epoch_that_began_and_wrote_nothing_does_not_part_the_logs_for_ever() {
        let (mut leader, mut follower) = (log(&[1, 1]), log(&[1, 1]));
        follower.begin_epoch(LeaderEpoch(2)).expect("begins");
        leader.begin_epoch(LeaderEpoch(3)).expect("begins");
        let known = leader.leader_epochs().end_offset_for(LeaderEpoch(2), Offset(2));
        let (epoch, end_offset) = known.expect("an older one is known");
        assert_eq!((epoch, end_offset), (LeaderEpoch(1), Offset(2)));
        let cut = cut_at(&follower, epoch, end_offset, Offset::ZERO);
        follower.truncate_to(cut).expect("cuts");
        assert_eq!((follower.log_end_offset(), last_epoch(&follower)), (Offset(2), LeaderEpoch(1)));
    }
}
