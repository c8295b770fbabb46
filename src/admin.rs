//! The admin listener: `/metrics`, `/health`, `/tree`, `/cluster`, `/quorum` over HTTP, on loopback unless told otherwise.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use madang_actors::child_spec::ExitReason;
use madang_actors::host::{Child, Placement, TaskContext, TreeSnapshot, TreeViewer};
use madang_transport::Stats;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::applier::Phase;
use crate::cluster_page;
use crate::node_env::Node;
use crate::quorum_page;

/// Requests for the tree that may wait.
const TREE_REQUESTS: usize = 16;
/// The admin port is the Kafka port and this.
const PORT_DISTANCE: u16 = 1000;

/// Where the admin listener is unless told otherwise; a free port if the Kafka port leaves no room.
#[must_use]
pub fn default_address(kafka_port: u16) -> String {
    format!("127.0.0.1:{}", kafka_port.checked_add(PORT_DISTANCE).unwrap_or(0))
}

/// What the pages show.
#[derive(Clone)]
pub struct AdminState {
    pub(crate) node: Arc<Node>,
    stats: Arc<Stats>,
    metrics: PrometheusHandle,
    tree: Arc<OnceLock<TreeViewer>>,
}

/// The process's recorder: there is one, whatever number of nodes a test starts.
fn recorder() -> PrometheusHandle {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    handle
        .get_or_insert_with(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            // Refused only if somebody else's recorder is installed: then theirs shows the counters.
            drop(metrics::set_global_recorder(recorder));
            handle
        })
        .clone()
}

impl AdminState {
    /// Pages over this node; the tree is shown once it is known.
    #[must_use]
    pub fn new(node: Arc<Node>, stats: Arc<Stats>) -> Self {
        Self { node, stats, metrics: recorder(), tree: Arc::default() }
    }

    /// Tells it the tree.
    pub fn show(&self, tree: TreeViewer) {
        drop(self.tree.set(tree));
    }
}

/// Counts what supervision does.
#[derive(Debug)]
pub struct Observer;

impl madang_actors::host::Observer for Observer {
    fn restarted(&self, path: &str, reason: &ExitReason) {
        let (child, reason) = (path.to_owned(), reason.label());
        metrics::counter!("madang_actor_restarts_total", "child" => child, "reason" => reason).increment(1);
    }

    fn escalated(&self, path: &str, _: &str) {
        metrics::counter!("madang_supervisor_escalations_total", "supervisor" => path.to_owned()).increment(1);
    }

    fn quarantined(&self, path: &str, _: &ExitReason) {
        metrics::counter!("madang_actors_quarantined_total", "child" => path.to_owned()).increment(1);
    }
}

/// Binds the listener. `none` as an address means that there is none: the child then ends at once, and is not asked again.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: &str, state: AdminState) -> Result<(Child, Option<SocketAddr>), String> {
    let listener = match address {
        "none" => None,
        address => Some(listen(address)?),
    };
    let bound = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let listener = listener.map(Arc::new);
    let child = Child::task("admin", Placement::Here, move |context: TaskContext| {
        serve(listener.as_ref().and_then(|listener| listener.try_clone().ok()), state.clone(), context)
    });
    Ok((child, bound))
}

fn listen(address: &str) -> Result<std::net::TcpListener, String> {
    let failed = |error: std::io::Error| format!("admin listener: cannot listen on {address}: {error}");
    let resolved = address.to_socket_addrs().map_err(failed)?.next();
    let resolved = resolved.ok_or_else(|| format!("admin listener: {address} has no address"))?;
    let listener = std::net::TcpListener::bind(resolved).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

async fn serve(listener: Option<std::net::TcpListener>, state: AdminState, context: TaskContext) {
    let Some(listener) = listener.and_then(|listener| tokio::net::TcpListener::from_std(listener).ok()) else {
        return context.stop.await;
    };
    let (asked, asks) = mpsc::channel(TREE_REQUESTS);
    let viewer = Arc::clone(&state.tree);
    let pages = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/health", get(health))
        .route("/cluster", get(cluster))
        .route("/quorum", post(quorum_page::change))
        .with_state(state)
        .merge(Router::new().route("/tree", get(tree)).with_state(asked));
    tokio::select! {
        () = show_trees(viewer, asks) => {}
        ended = axum::serve(listener, pages).into_future() => {
            if let Err(error) = ended {
                tracing::error!(%error, "the admin listener ended");
            }
        }
        () = context.stop => {}
    }
}

async fn metrics_page(State(state): State<AdminState>) -> String {
    state.metrics.run_upkeep();
    let stats = &state.stats;
    let image = state.node.image.load();
    let counts = [
        ("madang_network_bytes_in_total", "counter", stats.bytes_in()),
        ("madang_network_bytes_out_total", "counter", stats.bytes_out()),
        ("madang_requests_total", "counter", stats.requests()),
        ("madang_connections_accepted_total", "counter", stats.accepted()),
        ("madang_connections_refused_total", "counter", stats.refused()),
        ("madang_connections", "gauge", stats.open_connections()),
        ("madang_quic_connections_accepted_total", "counter", stats.quic_accepted()),
        ("madang_quic_handshakes_failed_total", "counter", stats.quic_failed()),
        ("madang_quic_connections", "gauge", stats.open_quic_connections()),
        ("madang_topics", "gauge", image.topic_count() as u64),
        ("madang_partitions", "gauge", image.partition_count() as u64),
        ("madang_partitions_offline", "gauge", offline(&state.node).len() as u64),
        ("madang_fetch_sessions", "gauge", state.node.open_fetch_sessions() as u64),
    ];
    let mut page = state.metrics.render();
    for (name, kind, value) in counts {
        page.push_str(&format!("# TYPE {name} {kind}\n{name} {value}\n"));
    }
    page.push_str("# TYPE madang_connections_closed_total counter\n");
    for (reason, count) in stats.closes() {
        page.push_str(&format!("madang_connections_closed_total{{reason=\"{reason}\"}} {count}\n"));
    }
    page
}

async fn cluster(State(state): State<AdminState>) -> Json<Value> {
    Json(cluster_page::page(&state.node))
}

/// The partitions that this node holds and cannot serve now; one that another node leads is served there.
fn offline(node: &Node) -> Vec<String> {
    let down = |held: &Arc<crate::replicas::Held>| {
        let shared = held.handle.shared();
        let elsewhere = shared.assignment().is_some_and(|assigned| assigned.leader != Some(assigned.node_id));
        let serves = || held.handle.snapshot_for(madang_protocol::types::LeaderEpoch::NONE).is_ok();
        shared.is_offline() || !elsewhere && !serves()
    };
    node.replicas.all().iter().filter(|held| down(held)).map(|held| held.handle.actor().id().to_owned()).collect()
}

async fn health(State(state): State<AdminState>) -> Response {
    let phase = state.node.phase.borrow().clone();
    let offline = offline(&state.node);
    let (code, status) = match phase {
        Phase::Ready if offline.is_empty() => (StatusCode::OK, "ok"),
        Phase::Ready => (StatusCode::OK, "degraded"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Phase::Failed(_) => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
    };
    let body = json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "node_id": state.node.config.node_id.0,
        "cluster_id": state.node.image.load().cluster_id().to_string(),
        "offline_partitions": offline,
    });
    (code, Json(body)).into_response()
}

#[derive(Debug, serde::Deserialize)]
struct TreeQuery {
    format: Option<String>,
}

/// Looks at the tree for the page: supervisors are asked from their own system's thread.
async fn show_trees(tree: Arc<OnceLock<TreeViewer>>, mut asks: mpsc::Receiver<oneshot::Sender<TreeSnapshot>>) {
    while let Some(asker) = asks.recv().await {
        if let Some(viewer) = tree.get() {
            // Whoever asked may have gone.
            drop(asker.send(viewer.snapshot().await));
        }
    }
}

async fn tree(
    State(asked): State<mpsc::Sender<oneshot::Sender<TreeSnapshot>>>,
    Query(query): Query<TreeQuery>,
) -> Response {
    let (asker, answer) = oneshot::channel();
    let snapshot = match asked.try_send(asker) {
        Ok(()) => answer.await.ok(),
        Err(_) => None,
    };
    let Some(snapshot) = snapshot else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    match query.format.as_deref() {
        Some("json") => Json(tree_json(&snapshot)).into_response(),
        _ => snapshot.to_string().into_response(),
    }
}

fn tree_json(tree: &TreeSnapshot) -> Value {
    json!({
        "id": tree.id.as_str(),
        "kind": tree.kind,
        "policy": tree.policy,
        "state": tree.state.label(),
        "incarnation": tree.incarnation.0,
        "restarts": tree.restarts,
        "last_reason": tree.last_reason.as_ref().map(ToString::to_string),
        "mailbox": tree.mailbox.map(|depth| json!({ "items": depth.items, "bytes": depth.bytes, "waiting": depth.waiting })),
        "children": tree.children.iter().map(tree_json).collect::<Vec<_>>(),
    })
}
