//! The one shape of everything that decides: inputs in, effects out, no I/O, no clock, no randomness of its own.

use crate::clock::{Mono, Wall};
use crate::prng::Prng;

/// A pure state machine. Its shell gives it the time, the random numbers and the inputs, and performs its effects.
pub trait Machine {
    /// What can happen to it: messages, sync completions, administration.
    type Input;
    /// What it may ask of its shell.
    type Effect;

    /// Takes one input and appends what has to be done to `effects`.
    fn step(&mut self, now: Mono, wall: Wall, input: Self::Input, rng: &mut Prng, effects: &mut Vec<Self::Effect>);

    /// When it next wants to be stepped by time alone; the shell arms one timer for it.
    fn deadline(&self) -> Option<Mono>;

    /// Cheap assertions over the whole state, on in release builds too. A failure panics and costs this machine alone.
    fn check(&self);

    /// A canonical hash of the state: equal states, equal digests, in every run.
    fn digest(&self) -> u64;
}
