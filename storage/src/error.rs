//! Why a log cannot be opened or changed, and who pays for it: the caller, the partition, or its whole directory.
//! Invariant: a sync's failure is told apart from every other, as nothing may be retried after it.

use std::io;

use madang_protocol::types::Offset;

use crate::disk::{is_passing, is_sync_failure, sync_failed};

/// Why a log cannot be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed. The state in memory may be behind the files: reopen the log.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// A sync failed: what was written may be lost and no later sync can tell. The directory is to be given up; nothing is retried.
    #[error("{doing}: {source}")]
    Sync {
        /// What was being done.
        doing: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// This one partition's files contradict what was confirmed; nothing was changed. It goes offline, the others serve on.
    #[error("partition set aside: {reason}")]
    Quarantine {
        /// What was found, and where.
        reason: String,
    },
    /// The offset is not within the log: `OFFSET_OUT_OF_RANGE`.
    #[error("offset {0} is not within the log")]
    OutOfRange(Offset),
    /// An earlier failure left the file longer than the log says; the log has to be reopened.
    #[error("the log has to be reopened")]
    Broken,
}

pub(crate) fn doing(doing: &'static str) -> impl Fn(io::Error) -> LogError {
    move |source| {
        if is_sync_failure(&source) { LogError::Sync { doing, source } } else { LogError::Io { doing, source } }
    }
}

/// As [`doing`], of reading a segment. What the device cannot read now it cannot read at the next try either: that partition is set aside.
pub(crate) fn reading(source: io::Error) -> LogError {
    let of_the_process = [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&source.kind());
    if of_the_process || is_passing(&source) {
        return doing("read a segment")(source);
    }
    LogError::Quarantine { reason: format!("cannot read a segment: {source}") }
}

/// As [`doing`], of a sync.
pub(crate) fn syncing(what: &'static str) -> impl Fn(io::Error) -> LogError {
    move |source| doing(what)(sync_failed(source))
}
