//! A seeded simulation of the local engine on a disk whose power is cut, against a model that knows what was
//! acknowledged.
//!
//! The engine, its database and its thread are the real ones; the disk is a
//! [`BrittleDisk`](brittle_disk::BrittleDisk), the clock is a number, and the script waits for each answer, or holds
//! the committer until a whole burst is queued. So a seed gives the same run again: each change of the disk comes
//! from one thread. What the scheduler still decides is when the committer takes what, and nothing depends on that.
//!
//! `LOCAL_STATE_SEED=n` runs one seed, `LOCAL_STATE_SEEDS=n` so many. The feature `planted-faults` brings the tests
//! that the simulation finds what it should.

mod gate;
mod model;
mod seeds;
mod simulation;

use super::LocalEngine;
use super::purge::Purge;

/// Whether nothing is purged in the background.
fn purge_is_done(engine: &LocalEngine) -> bool {
    engine.view().is_ok_and(|view| Purge::unfinished(&view).is_ok_and(|unfinished| unfinished.is_empty()))
}
