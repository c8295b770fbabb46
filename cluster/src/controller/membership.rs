//! Who copies the metadata log, and whose copies decide.
//! Invariant: it is what Raft goes by: a change of it is durable here before Raft goes by the new one.

use protobuf::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType};

/// The members of the quorum by Raft's numbers of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Those who vote.
    pub voters: Vec<u64>,
    /// Those who copy the log and do not vote.
    pub learners: Vec<u64>,
    /// The voters before a change that is under way: a majority of them has to agree as well.
    pub outgoing: Vec<u64>,
    /// Those of them who copy on once the change is over.
    pub learners_next: Vec<u64>,
    /// Whether the change ends by itself.
    pub auto_leave: bool,
}

impl Membership {
    /// A quorum of these voters and nobody else.
    #[must_use]
    pub fn of(mut voters: Vec<u64>) -> Self {
        voters.sort_unstable();
        Self { voters, ..Self::default() }
    }

    /// Whether `member` is the only one.
    #[must_use]
    pub fn is_lone(&self, member: u64) -> bool {
        self.is_sole_voter(member) && self.learners.is_empty() && self.learners_next.is_empty()
    }

    /// Whether nobody else has a vote.
    #[must_use]
    pub fn is_sole_voter(&self, member: u64) -> bool {
        self.voters == [member] && self.outgoing.is_empty()
    }

    /// Whether a change is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(super) fn of_state(state: &ConfState) -> Self {
        let sorted = |ids: &[u64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        Self {
            voters: sorted(&state.voters),
            learners: sorted(&state.learners),
            outgoing: sorted(&state.voters_outgoing),
            learners_next: sorted(&state.learners_next),
            auto_leave: state.auto_leave,
        }
    }

    pub(super) fn state(&self) -> ConfState {
        let mut state = ConfState::default();
        state.voters.clone_from(&self.voters);
        state.learners.clone_from(&self.learners);
        state.voters_outgoing.clone_from(&self.outgoing);
        state.learners_next.clone_from(&self.learners_next);
        state.auto_leave = self.auto_leave;
        state
    }

    /// Appends it: four lists, each a `u32` count and as many `u64`, and a byte; little endian.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        for list in [&self.voters, &self.learners, &self.outgoing, &self.learners_next] {
            bytes.extend_from_slice(&(list.len() as u32).to_le_bytes());
            list.iter().for_each(|member| bytes.extend_from_slice(&member.to_le_bytes()));
        }
        bytes.push(u8::from(self.auto_leave));
    }

    /// Reads what `encode` wrote, and what follows it.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (voters, bytes) = list(bytes)?;
        let (learners, bytes) = list(bytes)?;
        let (outgoing, bytes) = list(bytes)?;
        let (learners_next, bytes) = list(bytes)?;
        let (auto_leave, bytes) = bytes.split_first()?;
        Some((Self { voters, learners, outgoing, learners_next, auto_leave: *auto_leave != 0 }, bytes))
    }
}

/// A counted list of numbers, and what follows it.
pub(super) fn list(bytes: &[u8]) -> Option<(Vec<u64>, &[u8])> {
    let (count, bytes) = bytes.split_first_chunk::<4>()?;
    let (list, bytes) = bytes.split_at_checked((u32::from_le_bytes(*count) as usize).checked_mul(8)?)?;
    let (numbers, _) = list.as_chunks::<8>();
    Some((numbers.iter().map(|number| u64::from_le_bytes(*number)).collect(), bytes))
}

/// One step of a change of the members.
pub(super) fn single(member: u64, change: ConfChangeType) -> ConfChangeSingle {
    let mut single = ConfChangeSingle { node_id: member, ..ConfChangeSingle::default() };
    single.set_change_type(change);
    single
}

/// The change that an entry holds; none if it is of another kind.
///
/// # Errors
/// Bytes that are no change.
pub(super) fn change_of(entry: &Entry) -> Result<Option<ConfChangeV2>, String> {
    if entry.entry_type != EntryType::EntryConfChangeV2 {
        return Ok(None);
    }
    ConfChangeV2::parse_from_bytes(&entry.data).map(Some).map_err(|error| format!("a change of the quorum: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_back_as_it_was_written_and_never_past_the_end() {
        let members = Membership {
            voters: vec![2, 3],
            learners: vec![5],
            outgoing: vec![2],
            learners_next: vec![],
            auto_leave: true,
        };
        let mut bytes = Vec::new();
        members.encode(&mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(Membership::decode(&bytes[..length]), None);
        }
        bytes.push(9);
        assert_eq!(Membership::decode(&bytes), Some((members.clone(), &[9][..])));
        assert_eq!(Membership::of_state(&members.state()), members);
        assert_eq!(Membership::decode(&[255; 64]), None, "a count is no allocation");
    }
}
