//! Where explorations begin: situations that a search from nothing would reach late.
//! Invariant: every event of a situation can happen where it stands, or the situation fails.

use madang_cluster::replica::Durability::{self, Fsync, PageCache};

use super::Event::{self, Answer, Append, Apply, Confirm, Fence, Fetch, Lose, Outcome, Propose, Report, Silent, Sync};

/// A beginning.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// What it is about.
    pub name: &'static str,
    /// The modes in which it can be.
    pub durabilities: &'static [Durability],
    /// Events fewer on each path from it: more can happen at once there.
    pub spared: usize,
    /// How it comes about, from a cluster whose node 1 leads and where everybody is in sync.
    pub events: &'static [Event],
}

/// All of them.
pub const SITUATIONS: &[Situation] = &[
    Situation { name: "nothing has happened", durabilities: &[Fsync, PageCache], spared: 0, events: &[] },
    Situation {
        name: "one record acknowledged, and followers have not heard of it",
        durabilities: &[Fsync],
        spared: 0,
        events: &[
            Append(1),
            Sync(1),
            Fetch(2),
            Answer(2),
            Sync(2),
            Confirm(2),
            Fetch(3),
            Answer(3),
            Sync(3),
            Confirm(3),
        ],
    },
    Situation {
        name: "one record acknowledged, and followers have not heard of it, nothing on a device",
        durabilities: &[PageCache],
        spared: 0,
        events: &[Append(1), Fetch(2), Answer(2), Fetch(3), Answer(3), Fetch(2), Fetch(3)],
    },
    Situation {
        name: "node 3 has a record more than node 2",
        durabilities: &[Fsync],
        spared: 0,
        events: &[
            Append(1),
            Sync(1),
            Fetch(2),
            Answer(2),
            Sync(2),
            Append(1),
            Sync(1),
            Fetch(3),
            Answer(3),
            Sync(3),
            Confirm(2),
            Confirm(3),
        ],
    },
    Situation {
        name: "node 3 dropped, one record acknowledged without it",
        durabilities: &[Fsync],
        spared: 0,
        events: &[
            Silent(1, 3),
            Propose(0),
            Outcome(0),
            Apply(1),
            Apply(2),
            Apply(3),
            Append(1),
            Sync(1),
            Fetch(2),
            Answer(2),
            Sync(2),
            Confirm(2),
        ],
    },
    Situation {
        name: "node 3 dropped, one record acknowledged without it, nothing on a device",
        durabilities: &[PageCache],
        spared: 0,
        events: &[
            Silent(1, 3),
            Propose(0),
            Outcome(0),
            Apply(1),
            Apply(2),
            Apply(3),
            Append(1),
            Fetch(2),
            Answer(2),
            Fetch(2),
        ],
    },
    Situation {
        name: "node 1 alone, one record that is not acknowledged and only in its page cache",
        durabilities: &[Fsync, PageCache],
        spared: 1,
        events: &[Fence(2), Fence(3), Append(1), Fetch(2), Answer(2), Apply(1)],
    },
    Situation {
        name: "node 1 has dropped both others, node 2 may still lead",
        durabilities: &[Fsync, PageCache],
        spared: 1,
        events: &[Silent(1, 3), Propose(0), Outcome(0), Apply(1), Silent(1, 2), Propose(0), Outcome(0), Apply(1)],
    },
    Situation {
        name: "node 1 deposed and unaware of it, node 2 leads with a record that is not acknowledged",
        durabilities: &[Fsync, PageCache],
        spared: 1,
        events: &[Append(1), Fetch(2), Answer(2), Fence(1), Apply(2), Apply(3)],
    },
    Situation {
        name: "node 3 has a record more than node 2, which leads, and is about to be told",
        durabilities: &[Fsync],
        spared: 0,
        events: &[
            Append(1),
            Sync(1),
            Fetch(2),
            Answer(2),
            Sync(2),
            Append(1),
            Sync(1),
            Fetch(3),
            Answer(3),
            Sync(3),
            Confirm(2),
            Confirm(3),
            Fence(1),
            Apply(2),
            Apply(3),
            Fetch(3),
        ],
    },
    Situation {
        name: "node 3 has a record more than node 2, which leads, and is about to be told, nothing on a device",
        durabilities: &[PageCache],
        spared: 0,
        events: &[
            Append(1),
            Fetch(2),
            Answer(2),
            Append(1),
            Fetch(3),
            Answer(3),
            Fence(1),
            Apply(2),
            Apply(3),
            Fetch(3),
        ],
    },
    Situation {
        name: "node 3 lost an acknowledged record in its process, the controller knows",
        durabilities: &[PageCache],
        spared: 0,
        events: &[
            Append(1),
            Fetch(2),
            Answer(2),
            Fetch(3),
            Answer(3),
            Fetch(2),
            Fetch(3),
            Lose(3),
            Report(3),
            Apply(1),
        ],
    },
];
