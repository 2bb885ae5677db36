//! The planner: what is wanted and what is there, to what every host shall run, with a reason for each step
//! and each wait.
//!
//! [`plan`] is a pure function: no clock, no randomness, no I/O; the same input gives the same plan, on any
//! machine, in any order of its parts. It works in phases, each over all groups, so that what one phase
//! frees is there for the next:
//!
//! 1. `removal`: replicas that nobody wants any more go, and confirmed purges are forgotten;
//! 2. `update`: replicas of an older generation get the current one, in place, at most `max_parallel` at a
//!    time;
//! 3. `placement`: replicas without a living owner get one;
//! 4. `stop`: stopped deployments of which nothing is left are finished.
//!
//! What is assigned to a host that is alive stays there. A partition stays with its state: if its host is lost, another one
//! that reaches its state takes it over, and where there is none, it waits. Replicas without state move to any host when
//! their host is lost or may no longer run them.
//!
//! Architecture invariant: nothing here knows of the store, of gRPC or of time.

mod draft;
mod fleet;
mod group;
mod input;
mod phase;
mod reason;
mod seed;
mod step;
#[cfg(test)]
mod tests;

pub use input::{HostInput, Observation, PlanInput};
pub use phase::plan;
pub use reason::{HostRefusal, Refusal, WaitReason};
pub use step::{Finish, Kept, Plan, PlanStep, RemoveReason, StepAction};
