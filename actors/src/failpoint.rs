//! Planted faults for tests: the nth message of a kind that an actor takes makes it panic, stop, hang, pause or lose it.
//! Invariant: without the feature `failpoints` nothing can be planted and the check is compiled away.

use std::time::Duration;

/// What a planted fault does to the actor that meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailAction {
    /// The handler panics before it sees the message.
    Panic,
    /// The actor stops of its own accord; the message is dropped.
    Stop,
    /// The actor's thread blocks, with all actors on it, until the fault is lifted.
    Hang,
    /// The actor takes nothing for this long; its neighbours do.
    Delay(Duration),
    /// The message is dropped unhandled, so its reply answers with the default.
    DropMessage,
}

/// Nothing is planted without the feature.
#[cfg(not(feature = "failpoints"))]
#[must_use]
pub const fn hit(_actor: &str, _kind: &str) -> Option<FailAction> {
    None
}

/// Nothing hangs without the feature.
#[cfg(not(feature = "failpoints"))]
pub const fn hang() {}

#[cfg(feature = "failpoints")]
pub use planted::{FailPoint, hang, hit, plant};

#[cfg(feature = "failpoints")]
mod planted {
    use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

    use super::FailAction;

    struct Planted {
        id: u64,
        actor: String,
        kind: String,
        /// How many matching messages go by before the fault strikes.
        remaining: u64,
        action: FailAction,
        struck: bool,
    }

    #[derive(Default)]
    struct Registry {
        next_id: u64,
        planted: Vec<Planted>,
    }

    static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next_id: 0, planted: Vec::new() });
    static LIFTED: Condvar = Condvar::new();

    fn registry() -> MutexGuard<'static, Registry> {
        REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fault that is planted for as long as this lives. Dropping it lifts it and releases what hangs in it.
    #[must_use = "the fault is lifted when this is dropped"]
    #[derive(Debug)]
    pub struct FailPoint {
        id: Arc<u64>,
    }

    impl FailPoint {
        /// Whether it has struck.
        #[must_use]
        pub fn struck(&self) -> bool {
            registry().planted.iter().any(|planted| planted.id == *self.id && planted.struck)
        }
    }

    impl Drop for FailPoint {
        fn drop(&mut self) {
            registry().planted.retain(|planted| planted.id != *self.id);
            LIFTED.notify_all();
        }
    }

    /// Plants `action` for the `nth` message (1 is the first) whose kind is `kind`, taken by an actor whose path matches
    /// `actor`. In both patterns `*` stands for any run of characters. It strikes once.
    pub fn plant(actor: &str, kind: &str, nth: u64, action: FailAction) -> FailPoint {
        let mut registry = registry();
        registry.next_id += 1;
        let id = registry.next_id;
        registry.planted.push(Planted {
            id,
            actor: actor.into(),
            kind: kind.into(),
            remaining: nth.saturating_sub(1),
            action,
            struck: false,
        });
        FailPoint { id: Arc::new(id) }
    }

    /// The fault that strikes as the actor at the path `actor` takes a message of `kind`, if one does. Shells ask this.
    #[must_use]
    pub fn hit(actor: &str, kind: &str) -> Option<FailAction> {
        let mut registry = registry();
        let mut action = None;
        for planted in &mut registry.planted {
            if planted.struck || !matches(&planted.actor, actor) || !matches(&planted.kind, kind) {
                continue;
            }
            if planted.remaining > 0 {
                planted.remaining -= 1;
            } else if action.is_none() {
                planted.struck = true;
                action = Some(planted.action);
            }
        }
        action
    }

    /// Blocks the thread while any hang that has struck is planted.
    pub fn hang() {
        let held = |registry: &mut Registry| {
            registry.planted.iter().any(|planted| planted.struck && planted.action == FailAction::Hang)
        };
        drop(LIFTED.wait_while(registry(), held).unwrap_or_else(PoisonError::into_inner));
    }

    fn matches(pattern: &str, text: &str) -> bool {
        let mut parts = pattern.split('*');
        let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let Some(last) = pattern.split('*').skip(1).last() else { return rest.is_empty() };
        let middle = pattern.split('*').count().saturating_sub(2);
        for part in parts.take(middle) {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_star_stands_for_any_run() {
            for (pattern, text, expected) in [
                ("*", "anything", true),
                ("*", "", true),
                ("a*c", "abc", true),
                ("a*c", "ab", false),
                ("node/*/orders-*", "node/dir/orders-3", true),
                ("node/*/orders-*", "node/dir/other-3", false),
                ("exact", "exact", true),
                ("exact", "exactly", false),
                ("a*a", "a", false),
            ] {
                assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
            }
        }

        #[test]
        fn the_nth_message_meets_it_once() {
            let point = plant("only-here", "Append", 3, FailAction::DropMessage);
            let hits: Vec<_> = (0..5).map(|_| hit("only-here", "Append").is_some()).collect();
            assert_eq!(hits, [false, false, true, false, false]);
            assert!(point.struck());
            drop(point);
            assert_eq!(hit("only-here", "Append"), None);
        }
    }
}
