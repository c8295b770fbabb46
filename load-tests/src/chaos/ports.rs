//! Where the nodes of a run listen.
//! Invariant: every port was free when it was chosen.

use std::net::{TcpListener, UdpSocket};

/// Below those that the system gives to clients, above those that people use.
const RANGE: std::ops::Range<u16> = 26_000..32_000;
const STEP: u16 = 40;

/// The ports of one node, by its place from 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) kafka: u16,
    pub(crate) admin: u16,
    /// Data; control is at the port after it.
    pub(crate) nodes: u16,
    /// Where the proxy takes what is for the node.
    pub(crate) front: u16,
}

impl Ports {
    fn of(base: u16, place: u16) -> Self {
        Self {
            kafka: base + place,
            admin: base + 10 + place,
            nodes: base + 20 + 2 * place,
            front: base + 30 + 2 * place,
        }
    }

    fn are_free(&self) -> bool {
        let tcp = [self.kafka, self.admin].map(|port| TcpListener::bind(("127.0.0.1", port)));
        let udp =
            [self.nodes, self.nodes + 1, self.front, self.front + 1].map(|port| UdpSocket::bind(("127.0.0.1", port)));
        tcp.iter().all(Result::is_ok) && udp.iter().all(Result::is_ok)
    }
}

/// Ports of so many nodes; `salt` spreads runs that begin at once.
pub(crate) fn find(nodes: u16, salt: u32) -> Option<Vec<Ports>> {
    let steps = u32::from((RANGE.end - RANGE.start) / STEP);
    (0..steps).find_map(|step| {
        let step = u16::try_from((step + salt) % steps).ok()?;
        let base = RANGE.start + step * STEP;
        let all: Vec<Ports> = (0..nodes).map(|place| Ports::of(base, place)).collect();
        all.iter().all(Ports::are_free).then_some(all)
    })
}
