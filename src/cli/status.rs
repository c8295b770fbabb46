//! `madang cluster status`: the nodes of a cluster, who controls it, and how its partitions are.

use clap::Args;
use serde_json::Value;

use super::Failure;
use super::common::{Common, Output, block_on, print, print_json};
use super::tree::{AdminAddress, page};

/// Show the nodes of a cluster, its controller, and how many partitions lack replicas.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  madang cluster status --server 127.0.0.1:9092 --output json")]
pub(crate) struct Status {
    #[command(flatten)]
    admin: AdminAddress,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: Status) -> Result<(), Failure> {
    block_on(async {
        let seen = seen(&args.admin, &args.common.server).await?;
        match args.common.print.output {
            Output::Json => print_json(&seen),
            Output::Text => print(&described(&seen)),
        }
    })
}

/// What the cluster's admin listeners say of it, with the process of each node that answers.
pub(super) async fn seen(admin: &AdminAddress, server: &str) -> Result<Value, Failure> {
    let mut seen = look(&admin.resolve(server)?).await?;
    for node in seen["nodes"].as_array_mut().into_iter().flatten() {
        let of_node = node["listener"].as_str().and_then(|listener| AdminAddress::default().resolve(listener).ok());
        let Some(of_node) = of_node.filter(|_| node["pid"].is_null()) else { continue };
        // A node that is down, or whose admin listener is elsewhere, shows no process.
        if let Ok(its) = look(&of_node).await {
            let id = node["id"].clone();
            let all = its["nodes"].as_array();
            let own = all.and_then(|all| all.iter().find(|one| one["id"] == id && !one["pid"].is_null()));
            node["pid"] = own.map_or(Value::Null, |own| own["pid"].clone());
        }
    }
    Ok(seen)
}

async fn look(address: &str) -> Result<Value, Failure> {
    let answer = page(address, "/cluster").await.map_err(|error| {
        Failure::new(error.to_string())
            .try_this("--admin HOST:PORT as `madang start` prints it, or --server of another node")
    })?;
    let unreadable = || Failure::new(format!("{address}/cluster answers with status {}", answer.status));
    if answer.status != 200 {
        return Err(unreadable());
    }
    serde_json::from_slice(&answer.body).map_err(|_| unreadable())
}

fn described(seen: &Value) -> String {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut page = format!("cluster {}  controller {}\n", text(&seen["cluster_id"]), text(&seen["controller"]));
    page.push_str(&format!("{:<6} {:<8} {:<24} {:<18} {}\n", "NODE", "PID", "LISTENER", "ROLES", "STATE"));
    for node in seen["nodes"].as_array().into_iter().flatten() {
        let roles = node["roles"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(",");
        let (id, pid, listener) = (text(&node["id"]), text(&node["pid"]), text(&node["listener"]));
        page.push_str(&format!("{id:<6} {pid:<8} {listener:<24} {roles:<18} {}\n", text(&node["state"])));
    }
    let partitions = &seen["partitions"];
    let counts = ["total", "under_replicated", "under_min_isr", "offline"];
    let counts = counts.map(|name| format!("{} {}", text(&partitions[name]), name.replace('_', " ")));
    page.push_str(&format!("partitions: {}\n", counts.join(", ")));
    page
}
