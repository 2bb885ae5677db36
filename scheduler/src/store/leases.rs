//! Leases of the embedded store: when each ends. Which there are is durable; until when they hold is not,
//! because nobody could renew them while the store was down.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{LeaseId, StoreError};

#[derive(Debug, Clone, Copy)]
struct Lease {
    ttl: Duration,
    ends: Instant,
}

/// The leases that have not ended.
#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: HashMap<LeaseId, Lease>,
}

impl Leases {
    pub(super) fn add(&mut self, id: LeaseId, ttl: Duration, now: Instant) {
        self.leases.insert(id, Lease { ttl, ends: now + ttl });
    }

    pub(super) fn renew(&mut self, id: LeaseId, now: Instant) -> Result<(), StoreError> {
        let lease = self.leases.get_mut(&id).ok_or(StoreError::LeaseExpired { lease: id })?;
        lease.ends = now + lease.ttl;
        Ok(())
    }

    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    /// When the first of them ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.ends).min()
    }

    /// Takes out those that have ended.
    pub(super) fn take_ended(&mut self, now: Instant) -> Vec<(LeaseId, Duration)> {
        let ended: Vec<_> =
            self.leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, l)| (*id, l.ttl)).collect();
        for (id, _) in &ended {
            self.leases.remove(id);
        }
        ended
    }
}
