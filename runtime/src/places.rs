//! The places of one pool of instances: who gets one, who waits for one, and whose idle instance goes for it.
//!
//! Where they are is `blocks`'; the engines' pools have them.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hvm_types::Metering;
use tokio::time::{Instant, timeout_at};

use crate::RequestError;
use crate::blocks::{Blocks, Place, RestLinker};
use crate::worker::{Local, WorkerHandle};

/// How long a request waits for a place before it asks again for idle instances to go.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The places of the pool for one way of metering.
pub(crate) struct Places {
    metering: Metering,
    total: u32,
    blocks: Blocks,
    /// Requests that wait for a place; while there are any, no instance stays idle.
    waiting: AtomicUsize,
}

/// Counts a request that waits for a place.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Places {
    pub(crate) fn new(metering: Metering, total: u32) -> Self {
        Self { metering, total, blocks: Blocks::new(metering, total), waiting: AtomicUsize::new(0) }
    }

    /// What links components for the second block.
    pub(crate) fn rest_linker(&self) -> RestLinker {
        self.blocks.rest_linker()
    }

    /// All there are.
    pub(crate) const fn total(&self) -> u32 {
        self.total
    }

    /// Those that nobody has.
    pub(crate) fn free(&self) -> usize {
        self.blocks.free()
    }

    /// Requests that wait for one.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Whether an instance may stay in memory after its request.
    pub(crate) fn may_keep_instances(&self) -> bool {
        self.waiting() == 0
    }

    /// Places for one instance, at once or never. Where none is free, idle instances of this worker make room.
    fn take_now(&self, permits: u32) -> Option<Place> {
        loop {
            if let Some(place) = self.blocks.take_now(permits) {
                return Some(place);
            }
            if !Local::current().is_some_and(|local| local.reclaim_place(self.metering)) {
                return None;
            }
        }
    }

    /// Places for one instance where some are free, or idle instances of this worker can go. It waits for no instance,
    /// at most for places to be reserved.
    pub(crate) async fn take_if_free(&self, permits: u32) -> Option<Place> {
        self.blocks.ensure_room(permits).await;
        self.take_now(permits)
    }

    /// Places for one instance. Where none is free, idle instances make room, here first; then it waits.
    pub(crate) async fn take(
        &self,
        workers: &[WorkerHandle],
        permits: u32,
        until: Instant,
    ) -> Result<Place, RequestError> {
        if let Some(place) = self.take_if_free(permits).await {
            return Ok(place);
        }
        self.waiting.fetch_add(1, Relaxed);
        let _waits = Waits(&self.waiting);
        let mut place = pin!(timeout_at(until, self.blocks.take(permits)));
        loop {
            self.ask_for_room(workers, permits);
            tokio::select! {
                biased;
                place = &mut place => {
                    return place.map_err(|_| RequestError::HostFull)?.ok_or(RequestError::Stopped);
                }
                () = tokio::time::sleep(ASK_AGAIN) => {}
            }
        }
    }

    /// Asks all workers to let idle instances go.
    fn ask_for_room(&self, workers: &[WorkerHandle], permits: u32) {
        let metering = self.metering;
        for worker in workers {
            worker.try_order(Box::new(move |local| {
                for _ in 0..permits {
                    local.reclaim_place(metering);
                }
            }));
        }
    }
}
