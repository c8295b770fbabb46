//! Derive macro for the messages of `madang-protocol`.
