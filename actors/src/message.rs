//! What a mailbox needs to know of a message: its kind, its weight and its lane, all generated from the type.
//! Invariant: `KINDS` names every variant, in the order of the declaration, so that a sweep over kinds misses none.

/// Which of a mailbox's two lanes a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Drained first: epoch changes, fences, stops.
    Control,
    /// Drained when no control message waits.
    Data,
}

/// A message that a mailbox carries. Implemented by [`messages!`](crate::messages).
pub trait ActorMessage: Send + 'static {
    /// The names of all kinds.
    const KINDS: &'static [&'static str];
    /// This message's kind, one of `KINDS`.
    fn kind(&self) -> &'static str;
    /// The bytes it holds in memory, as far as the mailbox's bound is concerned.
    fn weight_bytes(&self) -> usize;
    /// Its lane.
    fn lane(&self) -> Lane;
}

/// Declares an actor's message enum and its [`ActorMessage`]. A variant's weight is the enum's size plus the expression
/// after `=>`, which sees the variant's fields by reference.
///
/// ```
/// # use madang_actors::{messages, message::{ActorMessage, Lane}};
/// messages! {
///     /// What a replica is asked.
///     pub enum ReplicaMessage {
///         control {
///             /// Leads from now on.
///             BecomeLeader { leader_epoch: i32 },
///             /// Ends.
///             Stop,
///         }
///         data {
///             /// Appends record batches.
///             Append { records: Vec<u8> } => records.len(),
///             /// Looks at the clock.
///             Observe(u64),
///         }
///     }
/// }
/// assert_eq!(ReplicaMessage::KINDS, ["BecomeLeader", "Stop", "Append", "Observe"]);
/// let append = ReplicaMessage::Append { records: vec![0; 100] };
/// assert_eq!((append.kind(), append.lane()), ("Append", Lane::Data));
/// assert!(append.weight_bytes() >= 100);
/// ```
#[macro_export]
macro_rules! messages {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            control {
                $(
                    $(#[$control_meta:meta])*
                    $control:ident
                    $({ $($(#[$control_field_meta:meta])* $control_field:ident : $control_type:ty),* $(,)? })?
                    $(($($control_tuple:ty),* $(,)?))?
                    $(=> $control_weight:expr)?
                ),* $(,)?
            }
            data {
                $(
                    $(#[$data_meta:meta])*
                    $data:ident
                    $({ $($(#[$data_field_meta:meta])* $data_field:ident : $data_type:ty),* $(,)? })?
                    $(($($data_tuple:ty),* $(,)?))?
                    $(=> $data_weight:expr)?
                ),* $(,)?
            }
        }
    ) => {
        $(#[$meta])*
        $vis enum $name {
            $(
                $(#[$control_meta])*
                $control
                $({ $($(#[$control_field_meta])* $control_field : $control_type),* })?
                $(($($control_tuple),*))?,
            )*
            $(
                $(#[$data_meta])*
                $data
                $({ $($(#[$data_field_meta])* $data_field : $data_type),* })?
                $(($($data_tuple),*))?,
            )*
        }

        impl $crate::message::ActorMessage for $name {
            const KINDS: &'static [&'static str] = &[$(stringify!($control),)* $(stringify!($data),)*];

            fn kind(&self) -> &'static str {
                match self {
                    $(Self::$control { .. } => stringify!($control),)*
                    $(Self::$data { .. } => stringify!($data),)*
                }
            }

            #[allow(unused_variables)]
            fn weight_bytes(&self) -> usize {
                let own = ::core::mem::size_of::<Self>();
                match self {
                    $(Self::$control { $($($control_field,)*)? .. } => own $(+ $control_weight)?,)*
                    $(Self::$data { $($($data_field,)*)? .. } => own $(+ $data_weight)?,)*
                }
            }

            fn lane(&self) -> $crate::message::Lane {
                match self {
                    $(Self::$control { .. } => $crate::message::Lane::Control,)*
                    $(Self::$data { .. } => $crate::message::Lane::Data,)*
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Reply;

    messages! {
        #[allow(dead_code)]
        enum Sample {
            control { Stop, Fence { epoch: i32 } }
            data { Append { records: Vec<u8>, reply: Reply<i64> } => records.len(), Look(u8) }
        }
    }

    messages! {
        enum OnlyData { control {} data { Tick } }
    }

    #[test]
    fn every_variant_is_listed_in_order() {
        assert_eq!(Sample::KINDS, ["Stop", "Fence", "Append", "Look"]);
        assert_eq!(OnlyData::KINDS, [OnlyData::Tick.kind()]);
    }

    #[test]
    fn kind_lane_and_weight_follow_the_declaration() {
        let (reply, _answer) = Reply::new(|| 0);
        let append = Sample::Append { records: vec![0; 1000], reply };
        assert_eq!((append.kind(), append.lane()), ("Append", Lane::Data));
        assert_eq!(append.weight_bytes(), size_of::<Sample>() + 1000);
        let fence = Sample::Fence { epoch: 1 };
        assert_eq!((fence.kind(), fence.lane(), fence.weight_bytes()), ("Fence", Lane::Control, size_of::<Sample>()));
        assert_eq!((Sample::Stop.lane(), Sample::Look(1).lane()), (Lane::Control, Lane::Data));
    }
}
