//! How a message is declared, and a type that speedy cannot derive.

/// Declares a message: its fields of level 1, then in order of their levels those that came later.
///
/// ```
/// use madang_protocol::node::{NodeMessage, Tag};
/// use madang_protocol::node_message;
///
/// node_message! {
///     /// What one node tells another.
///     pub struct Told = Tag::Received {
///         /// A number.
///         number: u32,
///     } since 2 {
///         /// A text; none from a node of level 1.
///         text: Option<String>,
///     }
/// }
///
/// assert_eq!(&Told { number: 7, text: Some("new".into()) }.write(1).unwrap()[..], [7, 0, 0, 0]);
/// assert_eq!(Told::read(1, &[7, 0, 0, 0]), Ok(Told { number: 7, text: None }));
/// ```
#[macro_export]
macro_rules! node_message {
    (
        $(#[$about:meta])*
        $vis:vis struct $name:ident = $tag:path { $($(#[$doc:meta])* $field:ident: $type:ty,)* }
        $(since $level:literal { $($(#[$later_doc:meta])* $later:ident: $later_type:ty,)* })*
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $name {
            $($(#[$doc])* $vis $field: $type,)*
            $($($(#[$later_doc])* $vis $later: $later_type,)*)*
        }

        impl $crate::node::NodeMessage for $name {
            const TAG: $crate::node::Tag = $tag;

            #[allow(unused_variables, reason = "a message may have no fields")]
            fn write_fields(&self, level: u16, head: &mut Vec<u8>) -> Result<(), $crate::node::NodeError> {
                $($crate::node::put(head, &self.$field)?;)*
                $(if level >= $level {
                    $($crate::node::put(head, &self.$later)?;)*
                })*
                Ok(())
            }

            #[allow(unused_variables, reason = "a message may have no fields")]
            fn read_fields(level: u16, head: &mut &[u8]) -> Result<Self, $crate::node::NodeError> {
                Ok(Self {
                    $($field: $crate::node::take(head)?,)*
                    $($($later: if level >= $level { $crate::node::take(head)? } else { Default::default() },)*)*
                })
            }
        }
    };
}

/// Has speedy encode `$type` as `$wire`: `$to` makes one of a reference, `$from` makes an `Option` of it, none where there is no such value.
#[macro_export]
macro_rules! encode_as {
    ($type:ty => $wire:ty, $to:expr, $from:expr) => {
        impl<'a, C: speedy::Context> speedy::Readable<'a, C> for $type {
            fn read_from<R: speedy::Reader<'a, C>>(reader: &mut R) -> Result<Self, C::Error> {
                let from: fn($wire) -> Option<$type> = $from;
                let unknown = || speedy::Error::custom(concat!("no such ", stringify!($type))).into();
                from(reader.read_value()?).ok_or_else(unknown)
            }

            // Allocation for a count of these is checked by it.
            fn minimum_bytes_needed() -> usize {
                <$wire as speedy::Readable<'a, C>>::minimum_bytes_needed()
            }
        }

        impl<C: speedy::Context> speedy::Writable<C> for $type {
            fn write_to<W: ?Sized + speedy::Writer<C>>(&self, writer: &mut W) -> Result<(), C::Error> {
                let to: fn(&$type) -> $wire = $to;
                writer.write_value(&to(self))
            }
        }
    };
}
