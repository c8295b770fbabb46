//! A client's end of a connection: encoded requests out, answers in, in order.
//! Invariant: U1: an answer is the one to the oldest request that has none, and every request gets one or its connection ends.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use madang_protocol::frame::{LENGTH_PREFIX, RequestHeader, decode_response, encode_request};
use madang_protocol::{ApiKey, ErrorCode, Request};

use crate::clients::Clients;
use crate::cover;
use crate::invariants::supervision;
use crate::node::connection::{Ends, connect};
use crate::sim::Sim;
use crate::swarm::FaultClass;

/// The connection has ended. What was asked and not answered may have been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnected;

/// One connection.
pub struct Connection {
    sim: Rc<Sim>,
    ends: RefCell<Option<Ends>>,
    outstanding: RefCell<VecDeque<(i32, ApiKey)>>,
    next_id: Cell<i32>,
}

impl Connection {
    /// Connects, if the node serves.
    ///
    /// # Errors
    /// It does not.
    pub async fn open(clients: &Clients, place: usize) -> Result<Self, Disconnected> {
        let sim = Rc::clone(&clients.sim);
        sim.pause(50, sim.swarm.network_us).await;
        let ends = clients.nodes.get(place).and_then(connect).ok_or(Disconnected)?;
        let ends = RefCell::new(Some(ends));
        let next_id = Cell::new(i32::try_from(sim.below(1000)).unwrap_or(0));
        Ok(Self { sim, ends, outstanding: RefCell::default(), next_id })
    }

    /// Whether it is still of use.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ends.borrow().is_some()
    }

    /// Sends a request, once there is room for it on its way. What is sent on a connection that has ended is lost.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send<'a, R: Request<'a>>(&self, version: i16, body: &R, answered: bool) -> Result<(), Disconnected> {
        let id = self.next_id.get();
        self.next_id.set(id.wrapping_add(1));
        let header = RequestHeader {
            api_key: R::KEY,
            api_version: version,
            correlation_id: id,
            client_id: Some("simulated".into()),
        };
        let chunks = match encode_request(&header, body) {
            Ok(chunks) => chunks,
            Err(error) => {
                self.sim.violate("SWARM", format!("{:?} {version} cannot be encoded: {error}", R::KEY));
                return Err(Disconnected);
            }
        };
        let mut frame = BytesMut::new();
        for chunk in &chunks {
            frame.put(chunk.read().unwrap_or_default());
        }
        let frame = frame.freeze().slice(LENGTH_PREFIX..);
        if answered {
            self.outstanding.borrow_mut().push_back((id, R::KEY));
        }
        // The ends are borrowed for each look alone: another task may close the connection meanwhile.
        let room = poll_fn(|context| match self.ends.borrow_mut().as_mut() {
            Some(ends) => ends.to.poll_ready(context).map(|ready| ready.is_ok()),
            None => Poll::Ready(false),
        });
        let room = room.await;
        let sent = room && self.ends.borrow_mut().as_mut().is_some_and(|ends| ends.to.try_send(frame).is_ok());
        if !sent || self.breaks() {
            self.close();
            return Err(Disconnected);
        }
        Ok(())
    }

    /// The answer to the oldest request that has none, without its length.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn receive(&self) -> Result<Bytes, Disconnected> {
        let Some(mut ends) = self.ends.borrow_mut().take() else { return Err(Disconnected) };
        let timer = self.sim.executor.sleep(supervision::LONGEST_REQUEST);
        let received = match select(ends.from.next(), timer).await {
            Either::Left((received, _)) => received,
            Either::Right(_) => {
                supervision::unanswered(&self.sim, &format!("{:?}", self.outstanding.borrow().front()));
                None
            }
        };
        let frame = received.ok_or(Disconnected)?;
        self.sim.pause(50, self.sim.swarm.network_us).await;
        let expected = self.outstanding.borrow_mut().pop_front();
        let id = frame.get(LENGTH_PREFIX..LENGTH_PREFIX + 4).and_then(|id| id.try_into().ok()).map(i32::from_be_bytes);
        self.sim.require(id.is_some() && id == expected.map(|(id, _)| id), "U1", || {
            format!("an answer to {id:?} where one to {expected:?} is due")
        });
        if self.breaks() {
            return Err(Disconnected);
        }
        *self.ends.borrow_mut() = Some(ends);
        Ok(frame.slice(LENGTH_PREFIX..))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn call<'a, R: Request<'a>>(&self, version: i16, body: &R) -> Result<Bytes, Disconnected> {
        self.send(version, body, true).await?;
        self.receive().await
    }

    /// Ends it.
    pub fn close(&self) {
        self.ends.borrow_mut().take();
    }

    fn breaks(&self) -> bool {
        let sim = &self.sim;
        let on = sim.swarm.classes.iter().any(|(class, _)| *class == FaultClass::ConnectionLoss);
        // Of a cluster's faults the others are to be the most.
        let rarity = if sim.swarm.nodes > 1 { 2400 } else { 120 };
        let breaks = on && !sim.is_healed() && sim.chance(1, rarity);
        if breaks {
            sim.fault(FaultClass::ConnectionLoss);
            cover!("connection lost");
        }
        breaks
    }
}

/// Reads an answer. One that cannot be read breaks U1.
pub fn decode<'a, R: Request<'static>>(sim: &Sim, frame: &'a Bytes, version: i16) -> Option<R::Response<'a>> {
    match decode_response::<R>(frame, version) {
        Ok((_, body)) => Some(body),
        Err(error) => {
            sim.violate("U1", format!("the answer to {:?} {version} cannot be read: {error}", R::KEY));
            None
        }
    }
}

/// Kafka's error of that number.
#[must_use]
pub fn error(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

/// Connections that are opened again when they are needed.
#[derive(Default)]
pub struct Link {
    open: BTreeMap<usize, Connection>,
    /// The place of the node that is asked.
    at: usize,
}

impl Link {
    /// The place of the node that is asked.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Asks that node from now on, if it is known.
    pub fn toward(&mut self, place: Option<usize>) {
        self.at = place.unwrap_or(self.at);
    }

    /// Asks any node of a cluster from now on.
    pub fn anywhere(&mut self, clients: &Clients) {
        if clients.are_of_cluster() {
            self.at = clients.sim.below(clients.nodes.len() as u64) as usize;
        }
    }

    /// The connection that is open, or a new one.
    ///
    /// # Errors
    /// The node does not serve.
    pub async fn get(&mut self, clients: &Clients) -> Result<&Connection, Disconnected> {
        let usable = self.open.remove(&self.at).filter(Connection::is_open);
        let connection = match usable {
            Some(connection) => connection,
            None => Connection::open(clients, self.at).await?,
        };
        Ok(self.open.entry(self.at).insert_entry(connection).into_mut())
    }

    /// Asks and waits.
    ///
    /// # Errors
    /// There is no connection, or it ended.
    pub async fn call<'a, R: Request<'a>>(
        &mut self,
        clients: &Clients,
        version: i16,
        body: &R,
    ) -> Result<Bytes, Disconnected> {
        self.get(clients).await?.call(version, body).await
    }
}
