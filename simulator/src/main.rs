//! A node and its clients in one seeded thread.

fn main() {}
