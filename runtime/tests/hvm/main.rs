//! The HVM as an embedder uses it, with guests that do every good and bad thing a guest does.

mod bed;
mod capability;
mod command;
mod compiling;
mod core_dump;
mod density;
mod deterministic;
mod fault;
mod greed;
mod idempotency;
mod import;
mod in_guest;
mod isolation;
mod life;
mod limit;
mod migration;
mod observation;
mod processor_time;
mod query;
mod seeing;
mod sequence;
mod takeover;
mod typed;
