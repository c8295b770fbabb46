//! What a core keeps of a request: a number. The shell keeps the matching reply slot, so effects stay comparable.

/// One accepted request, unique within one incarnation of the machine that was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);
