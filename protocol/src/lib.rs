//! Kafka's wire format, and what nodes say to each other: bytes in, values out. No I/O.

// The derive macro names this crate from outside and from inside alike.
extern crate self as madang_protocol;

pub mod api_key;
pub mod compression;
pub mod error_code;
pub mod frame;
pub mod message;
pub mod messages;
pub mod node;
pub mod payload;
pub mod reader;
pub mod record;
pub mod record_batch;
pub mod schema;
pub mod types;
mod utf8;
pub mod wire;
pub mod writer;

pub use api_key::ApiKey;
pub use error_code::ErrorCode;
pub use message::{IntoStatic, Message, Request};
pub use reader::{DecodeError, Reader};
pub use writer::{EncodeError, Writer};
