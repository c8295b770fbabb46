//! Whether somebody serves where clients connect, as a client notices it: a connection that has been answered once, and over which nothing is said
//! then, ends with the process at its other end.
//! Invariant: only a listener that refuses, after such a connection to it has ended, is absent for longer than a dying process takes to be gone;
//! trouble on this side is no absence.

use std::io::{
    self,
    ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof},
};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::kafka::listener::set_options;

/// How long a connection may take to be there, and to be answered.
const ANSWER: Duration = Duration::from_secs(1);
/// An ApiVersions request in version 0 of a client without a name. The kernel accepts for a process that is dying or not yet there, but does not answer for it.
const HELLO: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
/// How many attempts in a row a process that is being killed may still accept: the kernel closes thousands of its files one after the other.
const DYING: u32 = 4;
/// Between two of them.
const SOON: Duration = Duration::from_millis(25);
/// Between two attempts at a listener that nobody has been seen at; twice as long each time.
const LATER: Duration = Duration::from_secs(1);
/// The longest pause: it may be that only clients reach it.
const LONGEST: Duration = Duration::from_secs(30);

/// What an attempt to connect meets.
enum Met {
    /// Nobody listens.
    Refused,
    /// A listener that has no room, or whose process is about to be gone.
    ClosedAtOnce,
    /// Nothing can be said.
    Unknown,
    Answers(TcpStream),
}

/// Watches the listener at `address` (host and port) until dropped, and calls `tell` with true from the moment on at which a connection to it ends. It is taken back when
/// another one is answered, when nothing can be said, and `at_most` later. A connection is replaced by another one after `renew`, which has to be shorter than the listener keeps
/// one that asks nothing.
pub async fn watch_listener(address: &str, renew: Duration, at_most: Duration, tell: impl Fn(bool)) {
    let mut pause = LATER;
    loop {
        let mut met = meet(address).await;
        while let Met::Answers(stream) = met {
            pause = LATER;
            ended(stream, address, renew).await;
            // At once, as clients ask within a millisecond.
            tell(true);
            met = again(address).await;
            if matches!(met, Met::Refused) {
                // A process that lives does not close its listener, and whatever listens there next is another one.
                sleep(at_most).await;
            }
            tell(false);
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

/// Returns when the connection, or the one that has replaced it, has ended.
async fn ended(mut stream: TcpStream, address: &str, renew: Duration) {
    let mut at = Instant::now() + renew;
    loop {
        tokio::select! {
            () = closed(&mut stream) => return,
            () = sleep_until(at) => {}
        }
        at = Instant::now() + renew;
        if let Met::Answers(next) = meet(address).await {
            stream = next;
        }
    }
}

/// Tries until a connection is answered or refused, or as often as a dying process may accept.
async fn again(address: &str) -> Met {
    let mut met = meet(address).await;
    for _ in 1..DYING {
        if !matches!(met, Met::ClosedAtOnce) {
            break;
        }
        sleep(SOON).await;
        met = meet(address).await;
    }
    met
}

async fn meet(address: &str) -> Met {
    // Without a limit of its own: one that is given up goes on behind, and would gather others.
    let Some(found) = lookup_host(address).await.ok().and_then(|mut found| found.next()) else { return Met::Unknown };
    match timeout(ANSWER, ask(found)).await {
        Ok(Ok(stream)) => Met::Answers(stream),
        Ok(Err(error)) => match error.kind() {
            ConnectionRefused => Met::Refused,
            ConnectionReset | BrokenPipe | UnexpectedEof => Met::ClosedAtOnce,
            _ => Met::Unknown,
        },
        Err(_) => Met::Unknown,
    }
}

/// A connection that was answered.
async fn ask(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    // A machine without power says nothing.
    set_options(&stream)?;
    stream.write_all(&HELLO).await?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).await?;
    Ok(stream)
}

/// Returns when the other end is closed. It says no more than the rest of its answer before.
async fn closed(stream: &mut TcpStream) {
    let mut nothing = [0; 64];
    while stream.read(&mut nothing).await.is_ok_and(|read| read > 0) {}
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const LONG: Duration = Duration::from_secs(100);

    /// A port that nobody listens at.
    async fn nowhere() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its address")
    }

    /// Listens where somebody may have listened before.
    fn listen(address: SocketAddr) -> TcpListener {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("as brokers do");
        socket.bind(address).expect("the port");
        socket.listen(8).expect("listens")
    }

    async fn accept(listener: &TcpListener) -> TcpStream {
        timeout(PATIENCE, listener.accept()).await.expect("it connects").expect("a connection").0
    }

    /// Accepts a connection and answers.
    async fn answer(listener: &TcpListener) -> TcpStream {
        let mut stream = accept(listener).await;
        let mut hello = [0; HELLO.len()];
        timeout(PATIENCE, stream.read_exact(&mut hello)).await.expect("in time").expect("it asks");
        assert_eq!(hello, HELLO);
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0]).await.expect("answered");
        stream
    }

    /// Watches what listens at `address` while `test` runs.
    async fn watches(
        address: SocketAddr,
        (renew, at_most): (Duration, Duration),
        test: impl AsyncFnOnce(UnboundedReceiver<bool>),
    ) {
        let (tell, told) = unbounded_channel();
        let address = address.to_string();
        let watch = watch_listener(&address, renew, at_most, |absent| tell.send(absent).expect("the test goes on"));
        tokio::select! {
            // What is watched goes first when both are woken.
            biased;
            () = watch => unreachable!("it goes on for ever"),
            () = test(told) => {}
        }
    }

    async fn next(told: &mut UnboundedReceiver<bool>) -> Option<bool> {
        timeout(PATIENCE, told.recv()).await.expect("it is told")
    }

    #[tokio::test]
    async fn a_listener_that_ends_is_absent_also_when_another_one_listens_there() {
        let address = nowhere().await;
        let listener = listen(address);
        watches(address, (LONG, LONG), async |mut told| {
            let stream = answer(&listener).await;
            drop(listener);
            drop(stream);
            assert_eq!(next(&mut told).await, Some(true));
            // Whoever watches is woken before this, and is refused first.
            assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
            let listener = listen(address);
            assert!(timeout(SOON * 8, listener.accept()).await.is_err(), "it is not asked");
            assert!(told.try_recv().is_err());
        })
        .await;
    }

    #[tokio::test]
    async fn no_listener_is_absent_for_ever() {
        let address = nowhere().await;
        let listener = listen(address);
        watches(address, (LONG, SOON), async |mut told| {
            let stream = answer(&listener).await;
            drop(listener);
            drop(stream);
            assert_eq!(next(&mut told).await, Some(true));
            assert_eq!(next(&mut told).await, Some(false));
        })
        .await;
    }

    #[tokio::test]
    async fn one_that_tires_of_a_connection_and_takes_the_next_is_absent_for_a_moment() {
        let address = nowhere().await;
        let listener = listen(address);
        watches(address, (LONG, LONG), async |mut told| {
            drop(answer(&listener).await);
            assert_eq!(next(&mut told).await, Some(true));
            let _stream = answer(&listener).await;
            assert_eq!(next(&mut told).await, Some(false));
        })
        .await;
    }

    #[tokio::test]
    async fn a_connection_is_replaced_before_anybody_tires_of_it() {
        let address = nowhere().await;
        let listener = listen(address);
        watches(address, (SOON, LONG), async |mut told| {
            let mut first = answer(&listener).await;
            let mut second = answer(&listener).await;
            assert_eq!(first.read(&mut [0]).await.expect("ended in order"), 0, "it is not needed any more");
            let _third = answer(&listener).await;
            assert_eq!(second.read(&mut [0]).await.expect("ended in order"), 0);
            assert!(told.try_recv().is_err());
        })
        .await;
    }

    #[tokio::test]
    async fn one_that_has_no_room_is_absent_for_no_longer_than_a_dying_one() {
        let address = nowhere().await;
        let listener = listen(address);
        watches(address, (LONG, LONG), async |mut told| {
            drop(answer(&listener).await);
            assert_eq!(next(&mut told).await, Some(true));
            for _ in 0..DYING {
                drop(accept(&listener).await);
            }
            assert_eq!(next(&mut told).await, Some(false));
            // Nobody answers, so nothing ends.
            for _ in 0..2 {
                drop(accept(&listener).await);
            }
            assert!(told.try_recv().is_err());
        })
        .await;
    }

    #[tokio::test]
    async fn one_that_has_never_been_there_is_not_absent() {
        let address = nowhere().await;
        watches(address, (LONG, LONG), async |mut told| {
            let listener = listen(address);
            let _stream = answer(&listener).await;
            assert!(told.try_recv().is_err());
        })
        .await;
    }
}
