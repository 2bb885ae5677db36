//! Write a component for the HVM: one function from [`Request`] to [`Response`], durable state, nothing else. Programs
//! that embed the HVM can call a component without HTTP: see [`typed`].
//!
//! ```no_run
//! use hvm_guest::{Request, Response, kv};
//!
//! fn handle(request: Request) -> Result<Response, kv::Error> {
//!     let state = kv::open("default")?;
//!     let count = state.increment("requests", 1)?;
//!     Ok(Response::text(format!("{} was asked {count} times\n", request.path)))
//! }
//!
//! hvm_guest::export!(handle);
//! # fn main() {}
//! ```
//!
//! What a command (any method but GET, HEAD and OPTIONS) writes to [`kv`] is committed when it answers with a status
//! below 400, in one atomic durable record, and only then does the answer leave. With a status of 400 or more, or a
//! panic, nothing of it is kept. So a handler needs no transactions: it answers with an error, and nothing happened.
//!
//! A component imports only what it uses, and the manifest requests it by name: [`kv`] is the capability `keyvalue`,
//! [`config`] is `config`, [`log`](mod@log) is `logging`, [`http`] is `outgoing-http`.
//!
//! The crate needs no libc and works on `wasm32-unknown-unknown`, `wasm32-wasip1` and `wasm32-wasip2`. It does no
//! streaming: bodies are whole in memory, which the partition's limits bound.

mod bindings;
pub mod config;
mod error;
#[cfg(all(feature = "heap", target_arch = "wasm32", target_os = "unknown"))]
mod heap;
pub mod http;
pub mod kv;
pub mod log;
pub mod migration;
mod panic;
mod request;
mod response;
mod serve;
mod stream;
pub mod typed;
mod url;

pub use migration::Migration;
pub use request::{Headers, Request};
pub use response::{IntoResponse, Response};
#[doc(hidden)]
pub use serve::{Handler, serve};
pub use wasip2;
