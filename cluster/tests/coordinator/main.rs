//! The group coordinator from outside: its rules one by one, its dances as transcripts, and long random runs.

mod random;
mod rules_admin;
mod rules_membership;
mod rules_offsets;
mod transcripts;
mod world;
