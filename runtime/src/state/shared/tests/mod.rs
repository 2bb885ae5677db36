//! A seeded simulation of several engines on one store: one executor, one clock and one source of chance, so
//! that a seed always gives the same run. Stores' operations are delayed, reordered, and fail before or after
//! they took effect; hosts are killed, stop and wake again.

mod history;
mod simulation;
mod store;
mod toy;
pub(in crate::state) mod world;
