//! A proxy for datagrams between the nodes: each node is told to reach the others through it. It knows who sends by the port it sends from.
//! Invariant: it holds a bounded number of datagrams and of senders, and touches loopback alone.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

use super::links::{Fate, Links, Rule};

/// Datagrams that may be on their way at once.
const ON_THE_WAY: usize = 8192;
/// Senders that one socket remembers; all are forgotten when there are more, as if the proxy had started anew.
const SENDERS: usize = 64;
/// The largest datagram.
const DATAGRAM: usize = 65_536;

/// One endpoint of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    /// The node.
    pub(crate) node: u8,
    /// Where the others send to.
    pub(crate) port: u16,
    /// Where the node listens.
    pub(crate) target: u16,
}

/// A running proxy. Dropping it ends it.
pub(crate) struct Proxy {
    links: Arc<Mutex<Links>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    links: Arc<Mutex<Links>>,
    /// Which node sends from a port.
    nodes: BTreeMap<u16, u8>,
    room: Arc<Semaphore>,
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Proxy {
    /// Starts it.
    ///
    /// # Errors
    /// A port is taken.
    pub(crate) fn start(seed: u64, fronts: &[Front]) -> io::Result<Self> {
        let links = Arc::new(Mutex::new(Links::new(seed)));
        let nodes = fronts.iter().map(|front| (front.target, front.node)).collect();
        let shared = Arc::new(Shared { links: Arc::clone(&links), nodes, room: Arc::new(Semaphore::new(ON_THE_WAY)) });
        let bind = |front: &Front| {
            let socket = std::net::UdpSocket::bind(local(front.port))?;
            socket.set_nonblocking(true)?;
            Ok((*front, socket))
        };
        let bound = fronts.iter().map(bind).collect::<io::Result<Vec<_>>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async move {
                for (front, socket) in bound {
                    match UdpSocket::from_std(socket) {
                        Ok(socket) => drop(tokio::spawn(forward(Arc::clone(&shared), front, Arc::new(socket)))),
                        Err(error) => eprintln!("chaos: the proxy of node {} does not start: {error}", front.node),
                    }
                }
                // The other end is dropped with the proxy.
                drop(stopped.await);
            });
        };
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(serve)?;
        Ok(Self { links, stop: Some(stop), thread: Some(thread) })
    }

    fn links(&self) -> std::sync::MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the link is so.
    pub(crate) fn set(&self, from: u8, to: u8, rule: Rule) {
        self.links().set(from, to, rule);
    }

    /// Every link is whole again.
    pub(crate) fn heal(&self) {
        self.links().heal();
    }

    /// Datagrams that a link has lost so far.
    pub(crate) fn lost(&self, from: u8, to: u8) -> u64 {
        self.links().lost(from, to)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl Shared {
    /// Sends it now, later, twice or never.
    fn pass(&self, from: u8, to: u8, socket: &Arc<UdpSocket>, bytes: &[u8], target: Option<SocketAddr>) {
        let fate = self.links.lock().unwrap_or_else(PoisonError::into_inner).fate(from, to);
        let Fate::Arrives { after, copies } = fate else { return };
        let send = move |socket: &UdpSocket, bytes: &[u8]| {
            // A full socket loses datagrams, as networks do, and so does a process that is not there.
            drop(target.map_or_else(|| socket.try_send(bytes), |target| socket.try_send_to(bytes, target)));
        };
        for _ in 0..copies {
            if after.is_zero() {
                send(socket, bytes);
            } else if let Ok(place) = Arc::clone(&self.room).try_acquire_owned() {
                let (socket, bytes) = (Arc::clone(socket), bytes.to_vec());
                drop(tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    send(&socket, &bytes);
                    drop(place);
                }));
            }
        }
    }
}

/// What comes to a front goes to its node, from a socket for each sender, by which the answers find back.
async fn forward(shared: Arc<Shared>, front: Front, socket: Arc<UdpSocket>) {
    let mut senders: HashMap<SocketAddr, (Arc<UdpSocket>, AbortHandle)> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM];
    if let Err(error) = socket.writable().await {
        return eprintln!("chaos: the proxy of node {} does not start: {error}", front.node);
    }
    loop {
        // An error is of a datagram sent before, to a process that is not there.
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        let from = shared.nodes.get(&sender.port()).copied().unwrap_or(0);
        if senders.len() >= SENDERS {
            senders.drain().for_each(|(_, (_, answers))| answers.abort());
        }
        let own = match senders.entry(sender) {
            Entry::Occupied(known) => Arc::clone(&known.get().0),
            Entry::Vacant(place) => {
                let Ok(own) = connected(front.target).await else { continue };
                let own = Arc::new(own);
                let link = (front.node, from);
                let answers = answer(Arc::clone(&shared), link, Arc::clone(&own), Arc::clone(&socket), sender);
                place.insert((Arc::clone(&own), tokio::spawn(answers).abort_handle()));
                own
            }
        };
        shared.pass(from, front.node, &own, &buffer[..length], None);
    }
}

async fn connected(target: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local(0)).await?;
    socket.connect(local(target)).await?;
    // Until the system has said so once, nothing is sent.
    socket.writable().await?;
    Ok(socket)
}

async fn answer(
    shared: Arc<Shared>,
    (from, to): (u8, u8),
    own: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    sender: SocketAddr,
) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        if let Ok(length) = own.recv(&mut buffer).await {
            shared.pass(from, to, &front, &buffer[..length], Some(sender));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    fn port(socket: &UdpSocket) -> u16 {
        socket.local_addr().unwrap().port()
    }

    #[test]
    fn datagrams_find_their_way_there_and_back_and_a_cut_is_silent_in_one_direction() {
        let (one, two, reserved) = (socket(), socket(), socket());
        let front = port(&reserved);
        drop(reserved);
        let fronts = [
            Front { node: 2, port: front, target: port(&two) },
            // That of the first node, by whose port it is known.
            Front { node: 1, port: 0, target: port(&one) },
        ];
        let proxy = Proxy::start(1, &fronts).unwrap();
        let mut buffer = [0; 64];
        one.send_to(b"there", ("127.0.0.1", front)).unwrap();
        let (length, from) = two.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"there");
        two.send_to(b"back", from).unwrap();
        let (length, _) = one.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"back");
        proxy.set(2, 1, Rule { cut: true, ..Rule::default() });
        two.send_to(b"lost", from).unwrap();
        one.send_to(b"again", ("127.0.0.1", front)).unwrap();
        let (length, _) = two.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"again");
        // Until the proxy has counted it, it may be on its way.
        while proxy.lost(2, 1) == 0 {
            std::thread::yield_now();
        }
        proxy.heal();
        two.send_to(b"healed", from).unwrap();
        let (length, _) = one.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"healed");
    }
}
