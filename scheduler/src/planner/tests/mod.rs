//! The planner, on small towns of hosts: stories with one outcome each, and random lives in which every
//! step keeps what must always hold.

mod lives;
mod placing;
mod sharing;
mod stopping;
mod town;
mod updating;
