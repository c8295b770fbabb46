//! `#[derive(Message)]`: from a struct with version attributes to Kafka's encoding of it, its defaults and its schema.
//! The generated code holds no rule of the wire format itself: it calls `madang_protocol::wire`.

mod attributes;
mod expand;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `Default`, `IntoStatic`, `Wire`, `Nullable` and, where the struct has a `#[message(..)]` attribute, `Message`.
///
/// On the struct, for what is encoded by itself (a request, a response, the key of a record):
/// * `#[message(versions = "4-18", flexible = "12+")]`: the versions that exist, and those with compact lengths and tagged fields (none if left out).
///
/// On a field, each part optional:
/// * `#[field(versions = "3+")]`: the versions that have the field; all if left out.
/// * `nullable` or `nullable = "7+"`: the versions in which an `Option` may be `None`; without it, none.
/// * `tag = 0`: in all its versions (or those of `tagged = "5+"`) the field is a tagged one.
/// * `default = -1`, `default = null`: what a version without the field decodes to, and what a tagged field leaves out. Zero or empty if left out.
/// * `ignorable`: a version without the field drops its value in silence; otherwise a value other than the default is an error.
#[proc_macro_derive(Message, attributes(message, field))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::message(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
