//! Waits for clients that may never come back: what stands still for too long is given up, and its thread left behind.
//! Invariant: nothing here waits longer than it was told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How often threads that are to end are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Tells the one who waits that the work goes on, and the work that nobody waits any more.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    beats: AtomicU64,
    given_up: AtomicBool,
}

impl Pulse {
    /// The work has come further.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}

/// Does the work on a thread of its own, and from the beginning on another one if it stands still: `times` in all. Whoever stands still is left behind
/// after `still` at least, and twice that at most.
///
/// # Errors
/// What the work failed with, or that the last one stood still.
pub(crate) fn while_it_moves<T: Send + 'static>(
    times: u32,
    still: Duration,
    work: impl Fn(&Pulse) -> Result<T, String> + Send + Sync + 'static,
) -> Result<T, String> {
    let work = Arc::new(work);
    for _ in 0..times {
        let (pulse, work) = (Arc::new(Pulse::default()), Arc::clone(&work));
        let (done, outcome) = sync_channel(1);
        let of_work = Arc::clone(&pulse);
        // Nobody hears of an end that comes too late.
        let thread = move || drop(done.send(work(&of_work)));
        Builder::new().spawn(thread).map_err(|error| error.to_string())?;
        loop {
            let before = pulse.beats.load(Ordering::Relaxed);
            match outcome.recv_timeout(still) {
                Ok(came) => return came,
                Err(RecvTimeoutError::Disconnected) => return Err("it panicked".to_owned()),
                Err(RecvTimeoutError::Timeout) if pulse.beats.load(Ordering::Relaxed) == before => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        pulse.given_up.store(true, Ordering::Release);
        println!("chaos: a client stood still for {} s, and is left behind", still.as_secs());
    }
    Err(format!("{times} clients stood still"))
}

/// Waits until all of them have ended, but no longer than that; answers how many have not and are left behind.
pub(crate) fn join_within(threads: &mut Vec<JoinHandle<()>>, patience: Duration) -> usize {
    let until = Instant::now() + patience;
    while !threads.iter().all(JoinHandle::is_finished) && Instant::now() < until {
        std::thread::sleep(LOOK);
    }
    let (ended, stuck): (Vec<_>, Vec<_>) = threads.drain(..).partition(JoinHandle::is_finished);
    ended.into_iter().for_each(|thread| drop(thread.join()));
    stuck.len()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    const STILL: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn work_that_stands_still_is_given_up_and_done_by_another() {
        let (end, never) = channel::<()>();
        let (tries, never) = (AtomicU64::new(0), Mutex::new(never));
        let came = while_it_moves(2, STILL, move |_| {
            let place = tries.fetch_add(1, Ordering::Relaxed);
            if place == 0 {
                // As a client does that waits for a lock of its own.
                assert!(never.lock().unwrap().recv().is_err());
            }
            Ok(place)
        });
        assert_eq!(came, Ok(1));
        drop(end);
    }

    #[test]
    fn work_that_goes_on_is_waited_for() {
        let still = Duration::from_secs(1);
        let came = while_it_moves(1, still, move |pulse| {
            for _ in 0..25 {
                std::thread::sleep(still / 10);
                pulse.beat();
            }
            Ok(pulse.is_given_up())
        });
        assert_eq!(came, Ok(false));
    }

    #[test]
    fn work_that_fails_has_failed() {
        let tries = Arc::new(AtomicU64::new(0));
        let of_work = Arc::clone(&tries);
        let came = while_it_moves::<()>(3, LONG, move |_| {
            of_work.fetch_add(1, Ordering::Relaxed);
            Err("nothing comes".to_owned())
        });
        assert_eq!((came, tries.load(Ordering::Relaxed)), (Err("nothing comes".to_owned()), 1));
    }

    #[test]
    fn work_that_is_given_up_hears_of_it() {
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let came = while_it_moves::<()>(1, STILL, move |pulse| {
            while !pulse.is_given_up() {
                std::thread::sleep(LOOK);
            }
            tell.lock().unwrap().send(()).unwrap();
            Err("too late".to_owned())
        });
        assert_eq!(came, Err("1 clients stood still".to_owned()));
        assert_eq!(told.recv_timeout(LONG), Ok(()));
    }

    #[test]
    fn a_thread_that_does_not_end_is_left_behind() {
        let (end, never) = channel::<()>();
        let ended = std::thread::spawn(|| {});
        while !ended.is_finished() {
            std::thread::sleep(LOOK);
        }
        let mut threads = vec![std::thread::spawn(move || assert!(never.recv().is_err())), ended];
        assert_eq!(join_within(&mut threads, STILL), 1);
        assert!(threads.is_empty());
        drop(end);
    }
}
