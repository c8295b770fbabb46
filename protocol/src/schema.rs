//! What a message looks like in each version, as data: emitted by the derive macro, compared with Kafka's own definition by `examples/schema_oracle.rs`.

/// A closed range of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The lowest.
    pub min: i16,
    /// The highest; below `min` if there are none.
    pub max: i16,
}

impl Versions {
    /// No version at all.
    pub const NONE: Self = Self { min: 1, max: 0 };

    /// Whether `version` is one of them.
    #[must_use]
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

/// The type of a field on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Int64,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
    Array(&'static Kind),
    Struct(&'static StructSchema),
}

/// A struct and its fields, in the order in which they are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StructSchema {
    /// The name of the Rust type, which is Kafka's.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [FieldSchema],
}

/// The value of a field that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// Zero, false, empty; for a struct, the defaults of its fields.
    Empty,
    /// Null.
    Null,
    /// This number.
    Int(i64),
    /// This truth value.
    Bool(bool),
    /// This string.
    Text(&'static str),
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldSchema {
    /// In snake case.
    pub name: &'static str,
    /// Its type, without whether it may be null.
    pub kind: Kind,
    /// The versions that have it.
    pub versions: Versions,
    /// The versions in which it may be null.
    pub nullable: Versions,
    /// Its tag and the versions in which it is a tagged field.
    pub tag: Option<(u32, Versions)>,
    /// What versions without it decode to.
    pub default: DefaultValue,
    /// Whether encoding for a version without it drops its value.
    pub ignorable: bool,
}
