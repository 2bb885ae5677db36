//! The wire: generated messages, clients and servers of the gRPC services (`proto/hvm/v1`), conversions
//! between messages and the domain's types, and the error kinds that cross a process boundary.
//!
//! A message goes no further than the edge of a process: `T::try_from(message)` checks it and names the
//! field that is wrong, `Message::from(value)` writes it. Nothing here connects, listens or decides.

mod convert;
mod error;
mod invalid_field;
pub mod limit;
mod v1_generated;

pub use error::{ErrorKind, Failure};
pub use invalid_field::InvalidField;
/// Messages, clients and servers, generated from `proto/hvm/v1`.
pub use v1_generated::v1;
