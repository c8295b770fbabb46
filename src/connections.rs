//! Listeners and connections as children: an acceptor for each listener, a worker for each network thread, a child for each connection.
//! Invariant: a connection is a temporary child; its end costs nothing but itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use madang_actors::child_spec::Restart;
use madang_actors::host::{Arbiter, Child, SupervisorHandle, TaskContext};
use madang_cluster::configs::{BrokerConfig, dynamic_broker_number};
use madang_cluster::metadata::MetadataImage;
use madang_transport::kafka::{AcceptLimits, Accepted, Listener, QuicListener, Worker};
use tokio::sync::Mutex;

use crate::broker::Broker;
use crate::node_env::{Node, NodeEnv};
use crate::supervision::{once, take};

/// Names connections; never repeats within a process.
static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(1);

/// How many connections there may be, by the metadata and the node's configuration: the lower of Kafka's key and ours.
pub(crate) fn accept_limits(image: &MetadataImage, broker: &BrokerConfig) -> AcceptLimits {
    let number = |key| {
        let number = dynamic_broker_number(image, broker, broker.node_id, key);
        usize::try_from(number).unwrap_or(0)
    };
    let rate = |rate: usize| u32::try_from(rate).unwrap_or(u32::MAX);
    AcceptLimits {
        total: number("madang.max.connections").min(number("max.connections")),
        per_ip: number("madang.max.connections.per.ip").min(number("max.connections.per.ip")),
        loopback_reserve: broker.reserved_connections,
        accepts_per_second: rate(number("madang.connection.creation.rate").min(number("max.connection.creation.rate"))),
        accepts_per_second_per_ip: rate(number("madang.connection.creation.rate.per.ip")),
    }
}

/// Accepts for one listener once the node serves. The socket outlives the task, so a later life accepts where this one stopped.
pub(crate) async fn accept(listener: Arc<Listener>, node: Arc<Node>, context: TaskContext) {
    node.ready().await;
    tokio::select! {
        ended = listener.run() => {
            if let Err(error) = ended {
                tracing::error!(%error, "the listener ended");
            }
        }
        () = context.stop => {}
    }
}

/// As [`accept`], over QUIC, on the thread that reads the listener's socket.
pub(crate) async fn accept_quic(listener: Arc<QuicListener>, node: Arc<Node>, context: TaskContext) {
    node.ready().await;
    tokio::select! {
        ended = listener.run() => {
            if let Err(error) = ended {
                tracing::error!(%error, "the listener over QUIC ended");
            }
        }
        () = context.stop => {}
    }
}

/// Takes the connections that one network thread is handed and makes each a child. The queue outlives the task.
pub(crate) async fn serve(
    worker: Arc<Mutex<Worker>>,
    broker: Broker<NodeEnv>,
    arbiter: Arbiter,
    connections: SupervisorHandle,
    mut context: TaskContext,
) {
    let mut worker = worker.lock().await;
    loop {
        tokio::select! {
            accepted = worker.next() => match accepted {
                Some(accepted) => add(accepted, &broker, &arbiter, &connections).await,
                // The listener is over, which only a shutdown brings about.
                None => return context.stop.await,
            },
            () = &mut context.stop => return,
        }
    }
}

async fn add(accepted: Accepted, broker: &Broker<NodeEnv>, arbiter: &Arbiter, connections: &SupervisorHandle) {
    let name = format!("{}-{}", accepted.peer().peer_addr, NEXT_CONNECTION.fetch_add(1, Ordering::Relaxed));
    let (accepted, broker) = (once(accepted), broker.clone());
    let child = Child::task(name, arbiter, move |context: TaskContext| {
        let (accepted, broker) = (take(&accepted), broker.clone());
        async move {
            let Some(accepted) = accepted else { return };
            tokio::select! {
                _reason = accepted.serve(broker) => {}
                () = context.stop => {}
            }
        }
    });
    // A refusal drops the connection, which closes it.
    if let Err(error) = connections.add(child.restart(Restart::Temporary)).await {
        tracing::warn!(%error, "connection not taken");
    }
}
