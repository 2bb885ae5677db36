//! Interruption: how a guest that never returns gives way, without a check that a hot loop would feel.
//!
//! Each core module of a component is rewritten before it is compiled. It counts its own work: a loop in a local
//! variable, a function that could run long in a global one. Where the count runs out, the appended function `tick`
//! asks to grow a table by more than any table can have. wasmtime puts that question to the store's limiter, which
//! may wait; there the host looks at the clock, lets other work pass, and says no (`TICK_GROWTH`). Nothing is
//! renumbered, and nothing that the guest can see changes.
//!
//! ```text
//! component ──▶ sections ──▶ every core module ──▶ survey: what calls what, what is a table's or another module's
//!                                                  order:  callees before callers
//!                                                  rewrite: one function at a time, its longest path on the way
//!                                                  append: budget, tick, refill, bulk operations in pieces
//! ```
//!
//! What is counted how, and why no work escapes it, stands in `docs/decisions/0021-interruption.md`. This module
//! neither validates for wasmtime (which does so again, after it) nor knows what a tick leads to.

mod append;
mod bulk;
mod component;
mod error;
mod function;
mod hot;
mod order;
mod price;
mod rewrite;
mod survey;
#[cfg(test)]
mod tests;
mod ways;

pub use component::interruptible;
pub use error::InterruptibleError;
pub(crate) use price::{TICK_GROWTH, VERSION};
