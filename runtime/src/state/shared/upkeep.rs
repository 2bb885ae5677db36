//! Upkeep: images of partitions, the manifest, and deleting what neither needs any more.
//!
//! A partition is checkpointed when its records since the last image have as many bytes as the image, so images
//! at most double what is written; or when it holds back segments that nobody else needs. Segments are deleted
//! only after the manifest that does without them was stored. Only this log's own objects are deleted here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hvm_types::ReplicaId;
use object_store::path::Path;

use super::core::{Core, Owned, Standing, StoredImage, Table};
use super::manifest::{Kept, Manifest};
use super::material::Material;
use super::names::{LogName, number_in};
use super::objects::{Created, ObjectError};
use super::take::TakeError;
use super::wire::Broken;

/// A checkpoint is closed when its images have this many bytes.
pub(super) const CHECKPOINT_BYTES: usize = 16 << 20;
/// Segments may have this many times the bytes between two manifests before partitions with few records are
/// checkpointed only to let them go.
const HELD_BACK: u64 = 4;

/// What upkeep has counted.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// Bytes in the log since the last manifest.
    pub(super) logged_bytes: u64,
    /// The bytes of the segments that were not deleted.
    pub(super) segments: BTreeMap<u64, u64>,
    manifest_bytes: u64,
    next_manifest: u64,
    next_checkpoint: u64,
    /// Checkpoints whose images nothing names yet.
    held: BTreeSet<u64>,
}

impl Upkeep {
    /// The number of a new checkpoint. It is not deleted before it is released.
    pub(super) fn begin_checkpoint(&mut self) -> u64 {
        self.held.insert(self.next_checkpoint);
        self.next_checkpoint += 1;
        self.next_checkpoint - 1
    }

    /// Whoever made these checkpoints has named what it needs of them.
    pub(super) fn release(&mut self, checkpoints: impl IntoIterator<Item = u64>) {
        for checkpoint in checkpoints {
            self.held.remove(&checkpoint);
        }
    }
}

/// An image that was read and is to be stored.
struct Chosen {
    id: ReplicaId,
    owned: Owned,
    through: u64,
}

impl<M: Material> Core<M> {
    pub(super) async fn upkeep_loop(&self) {
        loop {
            self.upkeep_notify.notified().await;
            if self.is_due()
                && let Err(error) = self.keep_up().await
            {
                tracing::warn!(?error, "checkpointing waits for the next records");
            }
        }
    }

    fn is_due(&self) -> bool {
        let table = self.table.borrow();
        let upkeep = &table.upkeep;
        upkeep.logged_bytes >= self.settings.upkeep_bytes.max(2 * upkeep.manifest_bytes)
    }

    async fn keep_up(&self) -> Result<(), TakeError> {
        self.drop_lost().await?;
        let log = self.table.borrow().log.clone();
        let mut due: Vec<ReplicaId> = self.due_partitions();
        while !due.is_empty() {
            let (chosen, images) = self.read_images(&mut due);
            if !images.is_empty() {
                self.checkpoint(&log, chosen, &images).await?;
            }
        }
        let Some((manifest, logged_bytes)) = self.manifest(&log) else { return Ok(()) };
        let object = manifest.encode();
        let path = log.manifest(manifest.number);
        #[cfg(feature = "planted-faults")]
        if self.faults.delete_early {
            self.collect(&log, &manifest).await?;
        }
        if let Created::Exists(_) = self.objects.create(&path, &object).await? {
            let broken = Broken("was written by another writer of this log");
            return Err(ObjectError::corrupt(&path, broken).into());
        }
        {
            let mut table = self.table.borrow_mut();
            if table.log == log {
                table.upkeep.logged_bytes -= logged_bytes;
                table.upkeep.manifest_bytes = object.len() as u64;
            }
        }
        Ok(self.collect(&log, &manifest).await?)
    }

    /// Forgets partitions that others have completely taken: these delete the claims that they overtook.
    async fn drop_lost(&self) -> Result<(), TakeError> {
        let lost: Vec<_> = {
            let table = self.table.borrow();
            let lost = table.owned.iter().filter(|(_, owned)| owned.standing != Standing::Active);
            lost.map(|(id, owned)| (id.clone(), owned.claim, owned.term)).collect()
        };
        for (id, claim, term) in lost {
            if self.terms(&id).await?.contains(&term) {
                continue;
            }
            let mut table = self.table.borrow_mut();
            if table.owned.get(&id).is_some_and(|owned| owned.claim == claim) {
                table.owned.remove(&id);
                table.material.remove(&id).map_err(TakeError::Unavailable)?;
            }
        }
        Ok(())
    }

    /// The partitions that are to be checkpointed.
    fn due_partitions(&self) -> Vec<ReplicaId> {
        let table = self.table.borrow();
        let images: u64 = table.owned.values().map(|owned| owned.image_bytes).sum();
        let allowed = (HELD_BACK * self.settings.upkeep_bytes).max(2 * images);
        let mut kept_bytes: u64 = table.upkeep.segments.values().sum();
        let mut horizon = 0;
        for (number, bytes) in &table.upkeep.segments {
            if kept_bytes <= allowed {
                break;
            }
            kept_bytes -= bytes;
            horizon = number + 1;
        }
        let due = table.owned.iter().filter(|(_, owned)| {
            let has_grown = owned.logged_bytes > 0 && owned.logged_bytes >= owned.image_bytes;
            owned.standing != Standing::Removed && (has_grown || owned.from < horizon)
        });
        due.map(|(id, _)| id.clone()).collect()
    }

    /// Reads images for one checkpoint, all as of one segment.
    fn read_images(&self, due: &mut Vec<ReplicaId>) -> (Vec<Chosen>, Vec<(ReplicaId, Bytes)>) {
        let table = self.table.borrow();
        let (mut chosen, mut images, mut bytes) = (Vec::new(), Vec::new(), 0);
        // What is owned was appended, so there is a last segment.
        let through = table.next_segment.saturating_sub(1);
        while bytes < CHECKPOINT_BYTES
            && let Some(id) = due.pop()
        {
            let Some(owned) = table.owned.get(&id).cloned() else { continue };
            match table.material.image(&id) {
                Ok(image) => {
                    let image = image.encode();
                    bytes += image.len();
                    images.push((id.clone(), image));
                    chosen.push(Chosen { id, owned, through });
                }
                Err(error) => tracing::error!(error, %id, "a partition can't be checkpointed"),
            }
        }
        (chosen, images)
    }

    async fn checkpoint(
        &self,
        log: &LogName,
        chosen: Vec<Chosen>,
        images: &[(ReplicaId, Bytes)],
    ) -> Result<(), ObjectError> {
        let stored = self.store_images(images).await;
        let mut table = self.table.borrow_mut();
        if table.log != *log {
            return Ok(());
        }
        let Table { owned: all, upkeep, .. } = &mut *table;
        let places = stored?;
        upkeep.release(places.iter().map(|place| place.checkpoint));
        for (Chosen { id, owned, through }, place) in chosen.into_iter().zip(places) {
            // Lost and taken again meanwhile, it began anew.
            let Some(now) = all.get_mut(&id).filter(|now| now.origin == owned.origin) else { continue };
            now.image = Some(StoredImage { place, claim: owned.claim, term: owned.term, through });
            now.from = through + 1;
            now.image_bytes = place.length;
            now.logged_bytes -= owned.logged_bytes;
        }
        Ok(())
    }

    /// The next manifest, and the bytes in the log that it covers. `None` when the log has ended meanwhile.
    fn manifest(&self, log: &LogName) -> Option<(Manifest, u64)> {
        let mut table = self.table.borrow_mut();
        if table.log != *log {
            return None;
        }
        let mut first = table.next_segment;
        let mut kept = Vec::new();
        for (id, owned) in &table.owned {
            if owned.standing == Standing::Removed {
                let (term, claim, through) = (owned.term, owned.claim, owned.from);
                kept.push(Kept { id: id.clone(), term, claim, through, image: None });
                continue;
            }
            first = first.min(owned.from);
            if let Some(StoredImage { place, claim, term, through }) = owned.image {
                kept.push(Kept { id: id.clone(), term, claim, through, image: Some(place) });
            }
        }
        let number = table.upkeep.next_manifest;
        table.upkeep.next_manifest += 1;
        let nonce = self.objects.surroundings().nonce();
        Some((Manifest { log: log.clone(), number, nonce, first, kept }, table.upkeep.logged_bytes))
    }

    /// Deletes what the stored manifest does without.
    async fn collect(&self, log: &LogName, manifest: &Manifest) -> Result<(), ObjectError> {
        // The last one stays, so that whoever ends claims finds the next number.
        let old: Vec<u64> = {
            let table = self.table.borrow();
            let end = manifest.first.min(table.next_segment.saturating_sub(1));
            table.upkeep.segments.range(..end).map(|(number, _)| *number).collect()
        };
        let paths: Vec<Path> = old.iter().map(|number| log.segment(*number)).collect();
        self.objects.delete(&paths).await?;
        {
            let mut table = self.table.borrow_mut();
            if table.log != *log {
                return Ok(());
            }
            for number in &old {
                table.upkeep.segments.remove(number);
            }
        }
        let mut paths = self.objects.list(&log.manifests()).await?;
        paths.retain(|path| number_in(path).is_some_and(|number| number < manifest.number));
        self.objects.delete(&paths).await?;
        let mut paths = self.objects.list(&log.checkpoints()).await?;
        {
            let table = self.table.borrow();
            let images = table.owned.values().filter_map(|owned| owned.image);
            let mut needed: BTreeSet<u64> = images.map(|image| image.place.checkpoint).collect();
            needed.extend(manifest.kept.iter().filter_map(|kept| kept.image).map(|image| image.checkpoint));
            needed.extend(&table.upkeep.held);
            paths.retain(|path| number_in(path).is_some_and(|number| !needed.contains(&number)));
        }
        self.objects.delete(&paths).await
    }
}
