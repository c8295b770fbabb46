//! The messages of this node's voter to the others.
//! Invariant: a voter that does not listen holds up nobody: what has no room is dropped, and Raft is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use madang_actors::actor_ref::IncarnationRef;
use madang_actors::mailbox::SendError;
use madang_cluster::controller::actor::{ControllerMessage, RaftMessage, VoterLinks};
use madang_cluster::peers::raft_payload;
use madang_protocol::node::Raft;
use madang_protocol::payload::Payload;
use madang_protocol::types::NodeId;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::peers::{CONTROL, Peers, SNAPSHOT};

/// Messages to one voter that have not arrived yet.
const ON_THEIR_WAY: usize = 256;
/// How soon the fate of a snapshot is told again to a controller whose mailbox is full.
const TELL_AGAIN: std::time::Duration = std::time::Duration::from_millis(10);

/// See the file's head.
#[derive(Debug)]
pub struct Voters {
    peers: Arc<Peers>,
    /// One for each member that was ever sent anything: members are few.
    room: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
}

impl Voters {
    /// The links to the other members of the quorum.
    #[must_use]
    pub fn new(peers: Arc<Peers>) -> Self {
        Self { peers, room: Mutex::default() }
    }

    fn room(&self, member: NodeId) -> Arc<Semaphore> {
        // No user code runs under the lock, so a poisoned one is still whole.
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(room.entry(member).or_insert_with(|| Arc::new(Semaphore::new(ON_THEIR_WAY))))
    }
}

impl VoterLinks for Voters {
    fn send(
        &self,
        to: NodeId,
        message: Box<RaftMessage>,
        is_snapshot: bool,
        controller: IncarnationRef<ControllerMessage>,
    ) {
        let permit = self.room(to).try_acquire_owned().ok();
        let peers = Arc::clone(&self.peers);
        // One task at a time for each message that has room, and for each snapshot, of which there is one a voter.
        if permit.is_none() && !is_snapshot {
            drop(controller.try_send(ControllerMessage::Unreachable(to)));
            return;
        }
        tokio::task::spawn_local(async move {
            let delivered = match (&permit, raft_payload(&message)) {
                (Some(_), Ok(payload)) => {
                    let lane = if is_snapshot { SNAPSHOT } else { CONTROL };
                    peers.control.call(to, lane, &Raft {}, Payload::Bytes(payload)).await.is_ok()
                }
                _ => false,
            };
            if is_snapshot {
                tell(&controller, to, delivered).await;
            } else if !delivered {
                // Raft finds out by itself if this is not heard.
                drop(controller.try_send(ControllerMessage::Unreachable(to)));
            }
        });
    }
}

/// The fate of a snapshot has to be known: the voter is sent nothing else before.
async fn tell(controller: &IncarnationRef<ControllerMessage>, to: NodeId, delivered: bool) {
    while let Err(SendError::Full(_)) = controller.try_send(ControllerMessage::SnapshotSent { to, delivered }) {
        sleep(TELL_AGAIN).await;
    }
}
