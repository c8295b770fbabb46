//! Conversions there and back, and bytes that lie.

mod messages;
mod proposals;
