//! The runtime's rewriting of components, compiled into this crate from its own files: what is fuzzed then needs
//! neither a door in the product nor wasmtime. The list is that of `runtime/src/interrupt/mod.rs`.

#[path = "../../../runtime/src/interrupt/append.rs"]
mod append;
#[path = "../../../runtime/src/interrupt/bulk.rs"]
mod bulk;
#[allow(unreachable_pub, reason = "it is public in the runtime")]
#[path = "../../../runtime/src/interrupt/component.rs"]
mod component;
#[allow(unreachable_pub, reason = "it is public in the runtime")]
#[path = "../../../runtime/src/interrupt/error.rs"]
mod error;
#[path = "../../../runtime/src/interrupt/function.rs"]
mod function;
#[path = "../../../runtime/src/interrupt/hot.rs"]
mod hot;
#[path = "../../../runtime/src/interrupt/order.rs"]
mod order;
#[allow(dead_code, reason = "the runtime uses the rest")]
#[path = "../../../runtime/src/interrupt/price.rs"]
mod price;
#[path = "../../../runtime/src/interrupt/rewrite.rs"]
mod rewrite;
#[path = "../../../runtime/src/interrupt/survey.rs"]
mod survey;
#[path = "../../../runtime/src/interrupt/ways.rs"]
mod ways;

pub(crate) use component::interruptible;
pub(crate) use error::InterruptibleError;
