//! Workers: threads with an executor of their own. Each owns the partitions that are pinned to it; what arrives
//! elsewhere is handed over through a bounded channel.
//!
//! Loops of a worker:
//! ```text
//! channel ──▶ intake ──▶ partitions (tasks of their own, while they have requests)
//! work ─────▶ slices    every 100 ms while there is work: processor time to partitions
//! work ─────▶ turns     while partitions that used much wait: one of them after another
//! time ─────▶ hibernate when an instance has been idle for long: it goes
//! ```

mod account;
mod handle;
mod idle;
mod local;
mod quota;
mod slice;
mod standing;
mod thread;
mod turns;

pub(crate) use account::CpuAccount;
pub use handle::WorkerHandle;
pub(crate) use handle::prepare;
pub(crate) use local::{Local, Slot, begin_here, spawn_here};
pub(crate) use quota::CpuRate;
pub(crate) use slice::{Slices, process_cpu};
pub(crate) use thread::start;
pub(crate) use turns::{Turns, give_way, give_way_in_time, poll_begins};
