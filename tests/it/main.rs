//! What holds for the whole workspace: the house's rules here, a running broker and real clients in the other files.

mod administration;
mod ask;
#[allow(dead_code, reason = "the program of faults uses the rest of it")]
mod broker;
mod chaos;
mod cli;
mod client;
mod client_admin;
mod client_groups;
mod client_native;
mod cluster;
mod compaction;
mod cut_off;
mod followers;
mod gone;
mod house;
mod impatient;
mod kill9;
mod listeners;
#[allow(dead_code, reason = "the program of faults uses the rest of it")]
mod load;
mod quic_clients;
mod restart;
mod retention;
