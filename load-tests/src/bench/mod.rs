//! The pure half of `madang-bench`: what is sent when, what is made of what came back, and how it is told.
//! Invariant: no clock, socket, process or file; the same inputs give the same report.

pub mod drift;
pub mod floors;
pub mod frames;
pub mod html;
pub mod measure;
pub mod merge;
pub mod pairs;
pub mod proc_text;
pub mod records;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod table;
pub mod verify;
