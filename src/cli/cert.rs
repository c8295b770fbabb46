//! `madang cert`: who nodes are to each other.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use madang_protocol::types::{NodeId, Uuid};

use super::Failure;
use super::common::print;
use crate::certificates::Authority;
use crate::node_env::Entropy;

/// Make a cluster's authority, and certificates for its nodes.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  madang cert authority --dir authority\n  madang cert node --authority authority --node 1 --dir node-1/certificates"
)]
pub(crate) struct Cert {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an authority: whoever has its key can make nodes of the cluster.
    Authority {
        /// The folder to make it in.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The cluster's id, if it has one already; as `madang cluster status` shows it.
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        cluster_id: Option<String>,
    },
    /// Make what clients over QUIC are shown by a node, in its folder.
    Quic {
        /// The authority's folder.
        #[arg(long, value_name = "DIR")]
        authority: PathBuf,
        /// A name or address at which clients reach the node; may be given several times.
        #[arg(long = "host", value_name = "HOST", required = true)]
        hosts: Vec<String>,
        /// The node's folder, that of `madang.node.certificates`.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Make a node's certificate and key.
    Node {
        /// The authority's folder.
        #[arg(long, value_name = "DIR")]
        authority: PathBuf,
        /// The node's number (`node.id`).
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
        node: i32,
        /// The folder to make them in, for `madang.node.certificates`.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

pub(crate) fn run(args: Cert) -> Result<(), Failure> {
    let next = "a folder that is empty, or not there";
    match args.command {
        Command::Authority { dir, cluster_id } => {
            let cluster_id = match cluster_id {
                Some(id) => id.parse().map_err(|_| Failure::new(format!("{id} is not a cluster id")))?,
                None => new_cluster_id(),
            };
            Authority::create(&dir, cluster_id).map_err(|why| Failure::new(why).try_this(next))?;
            print(&format!("authority of cluster {cluster_id} in {}; keep its ca.key safe\n", dir.display()))
        }
        Command::Quic { authority, hosts, dir } => {
            let authority = open(&authority)?;
            authority.issue_for_clients(&hosts, &dir).map_err(|why| Failure::new(why).try_this(next))?;
            print(&format!("{} for clients over QUIC in {}\n", hosts.join(", "), dir.display()))
        }
        Command::Node { authority, node, dir } => {
            let authority = open(&authority)?;
            authority.issue(NodeId(node), &dir).map_err(|why| Failure::new(why).try_this(next))?;
            print(&format!(
                "node {node} of cluster {}: madang.node.certificates={}\n",
                authority.cluster_id,
                dir.display()
            ))
        }
    }
}

fn open(authority: &Path) -> Result<Authority, Failure> {
    Authority::open(authority).map_err(|why| Failure::new(why).try_this("madang cert authority --dir DIR"))
}

/// An id that no other cluster has.
pub(super) fn new_cluster_id() -> Uuid {
    let entropy = Entropy::default();
    Uuid::from_random(entropy.next(), entropy.next())
}
