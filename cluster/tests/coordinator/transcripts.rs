//! Stories: commands and what the shard does, one file each in `tests/transcripts/groups`.
//! `UPDATE_TRANSCRIPTS=1` rewrites what follows each `----`.
