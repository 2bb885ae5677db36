//! The books of this host: what each partition used, window by window, durable.
//!
//! The HVM gives out each use once. `ledger` adds it to the window that is open and to the sums; `journal` makes a
//! window durable when it is over. A crash loses the open window and nothing else, and counts nothing twice.

mod journal;
mod ledger;
mod usage_loop;
mod window;

pub use journal::UsageError;
pub(crate) use ledger::{UsageLedger, UsageReport, unix_millis};
pub(crate) use usage_loop::UsageLoop;
pub(crate) use window::Window;
