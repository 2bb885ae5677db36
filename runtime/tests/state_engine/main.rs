//! Tests of the state engines: one conformance suite for all, and what only the local engine promises.

mod bed;
mod conformance;
mod crash;
mod damage;
mod disk;
mod local;
mod model;
