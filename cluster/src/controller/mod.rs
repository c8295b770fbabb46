//! The controller.
pub mod records;
mod replay;
pub use replay::{dump, replay};
