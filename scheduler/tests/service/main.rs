//! The scheduler over real gRPC on loopback, with agents that only pretend to run what they are told.

mod deploying;
mod fake;
mod hosts;
mod images;
mod refusals;
mod restarting;
mod sharing;
