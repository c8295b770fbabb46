//! The messages: against their own schema, against another implementation, and against hostile bytes.

mod crate_oracle;
mod frames;
mod hostile;
mod table;
mod values;
mod versions;
