//! What both sides are asked by: connections that send frames made before and read no more of an answer than says whether it is one.
//! Invariant: the same frames in the same order to a broker and to the floor; an answer with an error ends the turn.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use madang_load_tests::bench::frames;
use rustix::net::{RecvFlags, recv};

/// A side that is silent for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const DISCARD: usize = 1 << 20;

pub(super) fn connect(port: u16) -> Result<TcpStream, String> {
    let connected = TcpStream::connect(("127.0.0.1", port)).and_then(|stream| {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    });
    connected.map_err(|error| format!("port {port}: {error}"))
}

fn told(error: &io::Error) -> String {
    format!("the connection: {error}")
}

/// Sends the same frame again and again.
#[derive(Debug)]
pub(super) struct Producer {
    stream: TcpStream,
    frame: Vec<u8>,
    answer: Vec<u8>,
    topic: String,
}

impl Producer {
    pub(super) fn new(port: u16, topic: &str, partition: i32, batch: &[u8]) -> Result<Self, String> {
        let answer = vec![0; frames::produce_answer_length(topic)];
        let frame = frames::produce(topic, partition, batch);
        Ok(Self { stream: connect(port)?, frame, answer, topic: topic.to_owned() })
    }

    pub(super) fn frame_length(&self) -> usize {
        self.frame.len()
    }

    fn send(&mut self) -> Result<(), String> {
        self.stream.write_all(&self.frame).map_err(|error| told(&error))
    }

    fn receive(&mut self) -> Result<(), String> {
        self.stream.read_exact(&mut self.answer).map_err(|error| told(&error))?;
        match frames::produce_error(&self.answer[4..], &self.topic) {
            Some(0) => Ok(()),
            other => Err(format!("Produce was answered {other:?}")),
        }
    }

    /// Sends so many frames, with at most `in_flight` of them unanswered.
    pub(super) fn run(&mut self, count: u64, in_flight: u64) -> Result<(), String> {
        for sent in 0..count {
            if sent >= in_flight {
                self.receive()?;
            }
            self.send()?;
        }
        (0..count.min(in_flight)).try_for_each(|_| self.receive())
    }

    /// Round trips, one in each interval, in microseconds.
    pub(super) fn trips(&mut self, count: u64, interval: Duration) -> Result<Vec<f64>, String> {
        let begin = Instant::now();
        let mut trips = Vec::new();
        for number in 0..count {
            let due = begin + interval * u32::try_from(number).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            self.send()?;
            self.receive()?;
            trips.push(sent.elapsed().as_secs_f64() * 1e6);
        }
        Ok(trips)
    }
}

/// Asks for piece after piece of a partition of like batches, and begins again at its end.
#[derive(Debug)]
pub(super) struct Reader {
    stream: TcpStream,
    topic: String,
    partition: i32,
    /// Bytes and records of one batch.
    batch: (usize, i64),
    /// Batches of one answer.
    batches: i64,
    /// Offset of the partition's end.
    end: i64,
    next: i64,
    discarded: Vec<u8>,
}

impl Reader {
    pub(super) fn new(
        port: u16,
        topic: &str,
        partition: i32,
        batch: (usize, i64),
        piece: usize,
        end: i64,
    ) -> Result<Self, String> {
        let batches = (piece / batch.0) as i64;
        let (stream, topic) = (connect(port)?, topic.to_owned());
        Ok(Self { stream, topic, partition, batch, batches, end, next: 0, discarded: vec![0; DISCARD] })
    }

    /// Bytes of an answer's records.
    pub(super) fn piece(&self) -> usize {
        self.batches as usize * self.batch.0
    }

    /// Asks so many times; returns the bytes that came.
    pub(super) fn run(&mut self, count: u64) -> Result<u64, String> {
        let mut bytes = 0;
        for _ in 0..count {
            if self.next + self.batches * self.batch.1 > self.end {
                self.next = 0;
            }
            let most = i32::try_from(self.piece()).unwrap_or(i32::MAX);
            let request = frames::fetch(&self.topic, self.partition, self.next, most);
            self.stream.write_all(&request).map_err(|error| told(&error))?;
            bytes += self.answer()? as u64;
            self.next += self.batches * self.batch.1;
        }
        Ok(bytes)
    }

    fn answer(&mut self) -> Result<usize, String> {
        let mut head = vec![0; frames::fetch_head_length(&self.topic)];
        self.stream.read_exact(&mut head).map_err(|error| told(&error))?;
        let Some((0, records)) = frames::fetched(&head, &self.topic) else {
            return Err(format!("Fetch was answered {:?}", frames::fetched(&head, &self.topic)));
        };
        if records != self.piece() {
            return Err(format!("a Fetch of {} bytes brought {records}", self.piece()));
        }
        let mut left = records;
        while left > 0 {
            let length = left.min(DISCARD);
            // The kernel drops the bytes uncopied, so that whoever sends them is the bound, not whoever asks.
            let (_, taken) = recv(&self.stream, &mut self.discarded[..length], RecvFlags::TRUNC)
                .map_err(|error| told(&error.into()))?;
            if taken == 0 {
                return Err(told(&io::ErrorKind::UnexpectedEof.into()));
            }
            left -= taken.min(left);
        }
        Ok(head.len() + records)
    }
}

/// Runs all of them at once, each on a thread of its own, and sums what they answer.
pub(super) fn all<T: Send>(them: &mut [T], run: impl Fn(&mut T) -> Result<u64, String> + Sync) -> Result<u64, String> {
    let run = &run;
    std::thread::scope(|scope| {
        let threads: VecDeque<_> = them.iter_mut().map(|one| scope.spawn(move || run(one))).collect();
        let ended = threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?);
        ended.sum()
    })
}
