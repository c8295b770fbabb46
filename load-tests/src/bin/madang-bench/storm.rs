//! Connections on schedule: each asks what the broker speaks, and stays until newer ones take its place.
//! Invariant: no more are open than the scenario says, and those that are being made.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use madang_load_tests::bench::schedule::Schedule;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::state::Shared;

/// ApiVersions version 0 with correlation id 7 and no client id: every broker answers it.
const QUESTION: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that are being made at once; beyond it the next waits, and its latency counts on.
const MAKING: usize = 1000;

async fn connect(address: &str) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    stream.write_all(&QUESTION).await.map_err(|error| format!("ask: {error}"))?;
    let failed = |error: std::io::Error| format!("answer: {error}");
    let length = stream.read_u32().await.map_err(failed)?;
    let correlation = stream.read_u32().await.map_err(failed)?;
    let error = stream.read_u16().await.map_err(failed)?;
    if correlation != 7 || error != 0 || !(6..1 << 20).contains(&length) {
        return Err(format!("answer: correlation id {correlation}, error {error}, {length} bytes"));
    }
    let mut rest = vec![0; length as usize - 6];
    stream.read_exact(&mut rest).await.map_err(failed)?;
    Ok(stream)
}

/// Makes connections until the producers are to end.
pub(crate) async fn run(shared: Arc<Shared>) {
    let wanted = &shared.scenario.connections;
    if wanted.rate == 0 {
        return;
    }
    let schedule = Schedule::new(1, wanted.rate);
    let addresses: Vec<String> = shared.servers.split(',').map(str::to_owned).collect();
    let mut open = VecDeque::new();
    let mut making = JoinSet::new();
    for serial in 0.. {
        let due = schedule.due_at(0, serial);
        tokio::select! {
            () = sleep_until(shared.moment(due).into()) => {}
            () = shared.producers_end.wait() => break,
        }
        if shared.producers_end.is_set() || shared.now() >= shared.end_ns.load(Ordering::Acquire) {
            break;
        }
        while making.len() >= MAKING {
            keep(&shared, &mut open, making.join_next().await);
        }
        let (shared_too, address) = (Arc::clone(&shared), addresses[serial as usize % addresses.len()].clone());
        making.spawn(async move {
            shared_too.counts().connect.began(due, shared_too.now());
            let made =
                timeout(PATIENCE, connect(&address)).await.unwrap_or_else(|_| Err("connect: no answer".to_owned()));
            let mut counts = shared_too.counts();
            let now = shared_too.now();
            match made {
                Ok(stream) => {
                    counts.connect.done(Some(due), now, 0);
                    Some(stream)
                }
                Err(error) => {
                    counts.connect.failed();
                    counts.error(error);
                    None
                }
            }
        });
        while let Some(made) = making.try_join_next() {
            keep(&shared, &mut open, Some(made));
        }
    }
}

fn keep(
    shared: &Shared,
    open: &mut VecDeque<TcpStream>,
    made: Option<Result<Option<TcpStream>, tokio::task::JoinError>>,
) {
    if let Some(Ok(Some(stream))) = made {
        open.push_back(stream);
    }
    while open.len() > shared.scenario.connections.hold as usize {
        open.pop_front();
    }
}
