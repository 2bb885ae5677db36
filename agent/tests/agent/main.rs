//! The agent as a whole: over real gRPC to a scheduler that only hands out what a test put into it, and over
//! real HTTP to real guests.

mod api;
mod converge;
mod forward;
mod hostile_client;
mod hostile_forms;
mod ingress;
mod metrics;
mod restart;
mod shared_state;
mod start;
mod support;
mod trust;
