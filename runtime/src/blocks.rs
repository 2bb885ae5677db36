//! The pool's places for instances, in two blocks. The first block is there from the start; the rest is reserved when
//! the first runs short, because reserving ten thousand places takes the kernel tens of milliseconds and most hosts
//! never need them. Each block is an engine of its own, since an engine can't grow. It makes no instances and lets
//! none go.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hvm_types::Metering;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use wasmtime::component::Linker;

use crate::StartError;
use crate::engine;
use crate::guest::{self, GuestState};

/// Places of the first block: reserving them takes less than a millisecond.
const FIRST: u32 = 256;

/// Of the first block, so many places are left when the rest is reserved: for what is asked for meanwhile.
const FEW: u32 = 64;

/// A part of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    First,
    Rest,
}

/// Room for one instance. It is free again when this is dropped.
pub(crate) struct Place {
    pub(crate) block: Block,
    _permit: OwnedSemaphorePermit,
}

/// What links components for the rest, once that is there.
pub(crate) type RestLinker = Arc<OnceLock<Linker<GuestState>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    NotNeeded,
    UnderWay,
    Ended,
}

/// The places of one pool.
pub(crate) struct Blocks {
    metering: Metering,
    first: Arc<Semaphore>,
    rest: Arc<Semaphore>,
    rest_linker: RestLinker,
    growth: Arc<watch::Sender<Growth>>,
    /// Places of the rest that are not reserved yet.
    unreserved: Arc<AtomicU32>,
}

impl Blocks {
    /// So many places, of which the engine of the first block has [`first_block`].
    pub(crate) fn new(metering: Metering, count: u32) -> Self {
        let first = first_block(count);
        let rest = count - first;
        let growth = if rest == 0 { Growth::Ended } else { Growth::NotNeeded };
        Self {
            metering,
            first: Arc::new(Semaphore::new(first as usize)),
            rest: Arc::new(Semaphore::new(0)),
            rest_linker: RestLinker::default(),
            growth: Arc::new(watch::channel(growth).0),
            unreserved: Arc::new(AtomicU32::new(rest)),
        }
    }

    pub(crate) fn rest_linker(&self) -> RestLinker {
        Arc::clone(&self.rest_linker)
    }

    /// Places that no instance holds, reserved or not.
    pub(crate) fn free(&self) -> usize {
        let reserved = self.first.available_permits() + self.rest.available_permits();
        reserved + self.unreserved.load(Relaxed) as usize
    }

    /// So many places for one instance, at once or not at all.
    pub(crate) fn take_now(&self, permits: u32) -> Option<Place> {
        [(Block::First, &self.first), (Block::Rest, &self.rest)].into_iter().find_map(|(block, places)| {
            let permit = Arc::clone(places).try_acquire_many_owned(permits).ok()?;
            Some(Place { block, _permit: permit })
        })
    }

    /// So many places for one instance, as soon as one of the blocks has them; never where the HVM has stopped.
    pub(crate) async fn take(&self, permits: u32) -> Option<Place> {
        let first = Arc::clone(&self.first).acquire_many_owned(permits);
        let rest = Arc::clone(&self.rest).acquire_many_owned(permits);
        let (block, permit) = tokio::select! {
            biased;
            permit = first => (Block::First, permit),
            permit = rest => (Block::Rest, permit),
        };
        Some(Place { block, _permit: permit.ok()? })
    }

    /// Reserves the rest where the first block runs short; waits for that only where there is no room before.
    pub(crate) async fn ensure_room(&self, permits: u32) {
        let left = self.first.available_permits();
        if left >= (FEW + permits) as usize || *self.growth.borrow() == Growth::Ended {
            return;
        }
        self.ensure_growth();
        if left < permits as usize {
            // The sender lives as long as this.
            let _ = self.growth.subscribe().wait_for(|growth| *growth != Growth::UnderWay).await;
        }
    }

    fn ensure_growth(&self) {
        let begins = self.growth.send_if_modified(|growth| {
            let begins = *growth == Growth::NotNeeded;
            if begins {
                *growth = Growth::UnderWay;
            }
            begins
        });
        if !begins {
            return;
        }
        let (places, linker) = (Arc::clone(&self.rest), Arc::clone(&self.rest_linker));
        let (growth, unreserved) = (Arc::clone(&self.growth), Arc::clone(&self.unreserved));
        let metering = self.metering;
        let reserving = move || {
            // Whatever happens: who finds the first block full waits for the end.
            let _ends = Ends(growth);
            let (count, began) = (unreserved.swap(0, Relaxed), Instant::now());
            match rest(metering, count) {
                Ok(made) => {
                    linker.get_or_init(|| made);
                    places.add_permits(count as usize);
                    tracing::debug!(places = count, took = ?began.elapsed(), "reserved the rest of the pool");
                }
                Err(error) => tracing::error!(
                    %error,
                    "the rest of the pool can't be reserved: at most {FIRST} instances are in memory at a time"
                ),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("hvm-places".to_owned()).spawn(reserving) {
            tracing::warn!(%error, "no thread to reserve the rest of the pool: it is tried again");
            self.growth.send_replace(Growth::NotNeeded);
        }
    }
}

/// Reserving has ended when this is dropped.
struct Ends(Arc<watch::Sender<Growth>>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.send_replace(Growth::Ended);
    }
}

/// Places of the first block, of so many in all.
pub(crate) fn first_block(count: u32) -> u32 {
    count.min(FIRST)
}

fn rest(metering: Metering, count: u32) -> Result<Linker<GuestState>, StartError> {
    let engine = engine::build(metering, count)?;
    guest::linker(&engine)
        .map_err(|error| StartError::Engine { instances: count, reason: format!("{error:#}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_rest_is_reserved_when_the_first_block_runs_short_and_not_before() {
        let blocks = Blocks::new(Metering::Time, FIRST + 2);
        let mut taken = Vec::new();
        for _ in FEW..FIRST {
            blocks.ensure_room(1).await;
            taken.push(blocks.take_now(1).expect("room"));
        }
        assert!(blocks.rest_linker.get().is_none());
        for _ in 0..FEW + 2 {
            blocks.ensure_room(1).await;
            taken.push(blocks.take_now(1).expect("room"));
        }
        assert!(blocks.rest_linker.get().is_some());
        assert_eq!(taken.iter().filter(|place| place.block == Block::Rest).count(), 2);
        assert!(blocks.take_now(1).is_none());
        assert_eq!(blocks.free(), 0);
        let waits = blocks.take(1);
        taken.pop();
        assert_eq!(waits.await.expect("not stopped").block, Block::Rest);
    }

    #[tokio::test]
    async fn a_small_pool_has_no_rest() {
        let blocks = Blocks::new(Metering::Time, 3);
        blocks.ensure_room(3).await;
        let taken = blocks.take_now(3).expect("room");
        blocks.ensure_room(1).await;
        assert!(blocks.take_now(1).is_none());
        drop(taken);
        assert_eq!(blocks.free(), 3);
    }
}
