//! The engine's material: the database on the host's disk, and the replies of those who commit.

use std::sync::Arc;

use hvm_types::{Epoch, ReplicaId};

use super::image::{Change, Image};
use super::material::Material;
use super::names::LogName;
use crate::state::local::{Cache, CacheBatch, CacheFailure, Cell, CommitJob, PartitionWrites};
use crate::state::{CommitError, PartitionInfo, ReadError};

/// The partitions in the database.
pub(super) struct AtHand(Cache);

impl AtHand {
    pub(super) const fn new(cache: Cache) -> Self {
        Self(cache)
    }

    fn fenced(&self, id: &ReplicaId) -> CommitError {
        match self.0.cell(id).map(|cell| cell.fenced_by()) {
            Some(Some(newest)) => CommitError::Fenced { newest },
            _ => CommitError::Removed,
        }
    }
}

fn unavailable(reason: &str) -> CommitError {
    CommitError::Unavailable { reason: reason.to_owned() }
}

fn text(failure: CacheFailure) -> String {
    failure.to_string()
}

impl Material for AtHand {
    type Commit = CommitJob;
    type Batch = CacheBatch;
    type Handle = Arc<Cell>;
    type Info = PartitionInfo;

    fn stage(&mut self, commits: Vec<CommitJob>) -> CacheBatch {
        self.0.stage(commits)
    }

    fn changes(&self, batch: &CacheBatch) -> Vec<Change> {
        let change = |PartitionWrites { id, after, last, writes }| Change { id, after, last, writes };
        self.0.changes(batch).into_iter().map(change).collect()
    }

    fn withdraw(&mut self, batch: &mut CacheBatch, id: &ReplicaId) {
        let why = self.fenced(id);
        self.0.withdraw(batch, id, &why);
    }

    fn give_up(&mut self, batch: &mut CacheBatch, reason: &str) {
        Cache::give_up(batch, &unavailable(reason));
    }

    fn apply(&mut self, batch: CacheBatch) -> Result<(), String> {
        self.0.apply(batch).map_err(text)
    }

    fn refuse(&mut self, commits: Vec<CommitJob>, reason: &str) {
        for commit in commits {
            commit.reply.send(Err(unavailable(reason)));
        }
    }

    fn install(&mut self, id: &ReplicaId, epoch: Epoch, image: Option<&Image>) -> Result<(), String> {
        self.0.install(id, epoch, image.map(|image| &image.entries)).map_err(text)
    }

    fn raise(&mut self, id: &ReplicaId, epoch: Epoch) -> Result<(), String> {
        self.0.raise(id, epoch).map_err(text)
    }

    fn handle(&self, id: &ReplicaId) -> Option<Arc<Cell>> {
        self.0.cell(id).cloned()
    }

    fn fence(&mut self, id: &ReplicaId, newest: Epoch) {
        self.0.fence(id, newest);
    }

    fn remove(&mut self, id: &ReplicaId) -> Result<(), String> {
        self.0.remove(id).map_err(text)
    }

    fn image(&self, id: &ReplicaId) -> Result<Image, String> {
        let (sequence, entries) = self.0.entries(id).map_err(|error| error.to_string())?;
        Ok(Image { sequence, entries })
    }

    fn info(
        &self,
        id: &ReplicaId,
        epoch: Epoch,
        log: &LogName,
        image: Option<&Image>,
    ) -> Result<PartitionInfo, ReadError> {
        let info = match image {
            Some(image) => Cache::info(id, epoch, &image.entries)?,
            None => self.0.own_info(id, epoch)?,
        };
        Ok(PartitionInfo { owner: log.host().parse().ok(), ..info })
    }
}
