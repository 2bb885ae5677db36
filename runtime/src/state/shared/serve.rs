//! The take loop: what is asked to be opened or removed, many at once, from the claim to the answer; and what
//! is deleted after it.

use std::collections::HashSet;

use futures::StreamExt;
use hvm_types::ReplicaId;
use object_store::path::Path;
use tokio::sync::oneshot;

use super::core::{Asked, Core, Decided, Decision, Standing, Undone, Want};
use super::log::end_claims;
use super::manifest::encode_checkpoint;
use super::material::Material;
use super::names::{Term, all_claims};
use super::objects::{Created, ObjectError};
use super::replay::first_needed;
use super::segment::{Base, Body, ImageRef, Segment};
use super::take::{ClaimFor, Claimed, ReadLog, TakeError, Taken};
use super::upkeep::CHECKPOINT_BYTES;
use super::wire::Broken;
use crate::state::{CommitError, OpenError};

/// Partitions that are taken together.
const TAKEN_TOGETHER: usize = 256;
/// Claims that are made at once.
const CLAIMS_AT_ONCE: usize = 16;
/// Larger images are stored as a checkpoint instead of in the log.
const INLINE_BYTES: usize = 64 << 10;

/// An asked partition whose decision is on its way to the log.
struct Pending<M: Material> {
    asked: Asked<M>,
    claimed: Claimed,
    decided: oneshot::Receiver<Result<(), Undone>>,
}

impl<M: Material> Core<M> {
    pub(super) async fn take_loop(&self) {
        loop {
            let lists = std::mem::take(&mut *self.lists.borrow_mut());
            for answer in lists {
                answer(self.list().await);
            }
            let batch = self.next_asked();
            if batch.is_empty() {
                self.asked_notify.notified().await;
            } else {
                self.take_batch(batch).await;
            }
        }
    }

    /// What waits, each partition once: a second wish for one waits for the first.
    fn next_asked(&self) -> Vec<Asked<M>> {
        let mut waiting = self.asked.borrow_mut();
        let (mut seen, mut batch) = (HashSet::new(), Vec::new());
        for asked in std::mem::take(&mut *waiting) {
            if batch.len() < TAKEN_TOGETHER && seen.insert(asked.id.clone()) {
                batch.push(asked);
            } else {
                waiting.push_back(asked);
            }
        }
        batch
    }

    async fn take_batch(&self, batch: Vec<Asked<M>>) {
        let asked: Vec<_> = futures::stream::iter(batch.into_iter().map(|asked| self.answer_if_open(asked)))
            .buffer_unordered(CLAIMS_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let claims: Vec<_> = futures::stream::iter(asked.into_iter().map(|asked| async move {
            let claim_for = match &asked.want {
                Want::Open(epoch, _) => ClaimFor::Epoch(*epoch),
                Want::Remove(_) => ClaimFor::Removal,
            };
            let claimed = self.claim(&asked.id, claim_for).await;
            (asked, claimed)
        }))
        .buffer_unordered(CLAIMS_AT_ONCE)
        .collect()
        .await;
        let (mut waiting, mut claimed) = (Vec::new(), Vec::new());
        for (asked, claim) in claims {
            match claim {
                Ok(Some(claim)) => {
                    waiting.push(asked);
                    claimed.push(claim);
                }
                Ok(None) => self.answer(asked, Ok(())),
                Err(error) => self.answer(asked, Err(error)),
            }
        }
        if claimed.is_empty() {
            return;
        }
        let (taken, logs) = self.take(claimed).await;
        let (pending, checkpoints) = self.decide(waiting, taken).await;
        let mut obsolete = Vec::new();
        for Pending { asked, claimed, decided } in pending {
            obsolete.extend(self.conclude(asked, &claimed, decided.await).await);
        }
        self.table.borrow_mut().upkeep.release(checkpoints);
        if let Err(error) = self.clean(&obsolete, logs).await {
            tracing::warn!(%error, "what was taken from other logs was not deleted");
        }
    }

    /// Answers what needs no claim: the partition is open with this epoch. The store is asked whether it still is:
    /// another engine of this host may have taken it since, and have acknowledged more.
    async fn answer_if_open(&self, asked: Asked<M>) -> Option<Asked<M>> {
        let Want::Open(epoch, _) = &asked.want else { return Some(asked) };
        let open = self.table.borrow().owned.get(&asked.id).and_then(|owned| {
            (owned.standing == Standing::Active && owned.term.epoch == *epoch).then_some(owned.term)
        });
        let Some(open) = open else { return Some(asked) };
        match self.terms(&asked.id).await {
            Ok(terms) if terms.last() == Some(&open) => {
                self.answer(asked, Ok(()));
                None
            }
            Ok(_) => Some(asked),
            Err(error) => {
                self.answer(asked, Err(error));
                None
            }
        }
    }

    /// Hands what was found to the commit loop, large images through checkpoints, which it returns too.
    async fn decide(
        &self,
        asked: Vec<Asked<M>>,
        taken: Vec<(Claimed, Result<Taken, TakeError>)>,
    ) -> (Vec<Pending<M>>, Vec<u64>) {
        let mut pending = Vec::new();
        let mut decisions = Vec::new();
        let mut large = Vec::new();
        for (asked, (claimed, taken)) in asked.into_iter().zip(taken) {
            let what = match taken {
                Err(error) => {
                    self.answer(asked, Err(error));
                    continue;
                }
                Ok(_) if matches!(asked.want, Want::Remove(_)) => Decided::Remove,
                Ok(Taken::Empty) => Decided::Open(Base::Empty, None),
                Ok(Taken::Own(claim)) => Decided::Open(Base::Continue(claim), None),
                Ok(Taken::Image(image)) => {
                    let encoded = image.encode();
                    if encoded.len() > INLINE_BYTES {
                        large.push((decisions.len(), asked.id.clone(), encoded));
                        Decided::Open(Base::Empty, Some(image))
                    } else {
                        Decided::Open(Base::Inline(encoded), Some(image))
                    }
                }
            };
            let (done, decided) = oneshot::channel();
            let (term, claim, log) = (claimed.claim.term, claimed.claim.name, claimed.claim.log.clone());
            let (id, had) = (asked.id.clone(), claimed.had);
            decisions.push(Some(Decision { id, term, claim, log, had, what, done: Some(done) }));
            pending.push(Pending { asked, claimed, decided });
        }
        let checkpoints = self.store_large(&mut decisions, large).await;
        self.decisions.borrow_mut().extend(decisions.into_iter().flatten());
        self.wake.notify_one();
        (pending, checkpoints)
    }

    /// Stores large images. The decisions of those that can't be stored are dropped, and undone by that.
    async fn store_large(
        &self,
        decisions: &mut [Option<Decision>],
        large: Vec<(usize, ReplicaId, bytes::Bytes)>,
    ) -> Vec<u64> {
        let mut checkpoints = Vec::new();
        let mut rest = large.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut indexes, mut images, mut total) = (Vec::new(), Vec::new(), 0);
            while total < CHECKPOINT_BYTES
                && let Some((index, id, image)) = rest.next()
            {
                total += image.len();
                indexes.push(index);
                images.push((id, image));
            }
            match self.store_images(&images).await {
                Ok(places) => {
                    checkpoints.extend(places.first().map(|place| place.checkpoint));
                    for (index, place) in indexes.into_iter().zip(places) {
                        if let Some(Decision { what: Decided::Open(base, _), .. }) = &mut decisions[index] {
                            *base = Base::Stored(place);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the images of taken partitions were not stored");
                    indexes.into_iter().for_each(|index| decisions[index] = None);
                }
            }
        }
        checkpoints
    }

    /// Puts images into a new checkpoint of this log. Until a decision or a manifest names it, upkeep must not
    /// delete it.
    pub(super) async fn store_images(
        &self,
        images: &[(ReplicaId, bytes::Bytes)],
    ) -> Result<Vec<ImageRef>, ObjectError> {
        let (log, number) = {
            let mut table = self.table.borrow_mut();
            (table.log.clone(), table.upkeep.begin_checkpoint())
        };
        let (object, places) = encode_checkpoint(number, self.objects.surroundings().nonce(), images);
        let path = log.checkpoint(number);
        let error = match self.objects.create(&path, &object).await {
            Ok(Created::Yes) => return Ok(places),
            Ok(Created::Exists(_)) => {
                ObjectError::corrupt(&path, Broken("was written by another writer of this log"))
            }
            Err(error) => error,
        };
        self.table.borrow_mut().upkeep.release([number]);
        Err(error)
    }

    /// Answers whoever asked. Returns the claims that nobody needs any more.
    async fn conclude(
        &self,
        asked: Asked<M>,
        claimed: &Claimed,
        decided: Result<Result<(), Undone>, oneshot::error::RecvError>,
    ) -> Vec<Path> {
        let id = asked.id.clone();
        let lower = claimed.lower.iter().map(|term| term.path(&id));
        match decided {
            Ok(Ok(())) => {}
            Ok(Err(Undone::LogEnded)) => {
                self.asked.borrow_mut().push_back(asked);
                self.asked_notify.notify_one();
                return Vec::new();
            }
            Ok(Err(Undone::Fenced(newest))) => {
                self.answer(asked, Err(TakeError::Fenced(newest)));
                return Vec::new();
            }
            Ok(Err(Undone::Unavailable(reason))) => {
                self.answer(asked, Err(TakeError::Unavailable(reason)));
                return Vec::new();
            }
            Err(_) => {
                self.answer(asked, Err(TakeError::Unavailable("its image was not stored".to_owned())));
                return Vec::new();
            }
        }
        if matches!(asked.want, Want::Open(..)) {
            self.answer(asked, Ok(()));
            return lower.collect();
        }
        // The lowest first: who still sees a claim then sees the highest of them too.
        let mut paths: Vec<Path> = lower.collect();
        paths.reverse();
        paths.push(claimed.claim.term.path(&id));
        for path in &paths {
            if let Err(error) = self.objects.delete(std::slice::from_ref(path)).await {
                self.answer(asked, Err(error.into()));
                return Vec::new();
            }
        }
        let mut table = self.table.borrow_mut();
        if table.owned.get(&id).is_some_and(|owned| owned.claim == claimed.claim.name) {
            table.owned.remove(&id);
        }
        drop(table);
        self.answer(asked, Ok(()));
        Vec::new()
    }

    fn answer(&self, asked: Asked<M>, result: Result<(), TakeError>) {
        let Asked { id, want } = asked;
        match want {
            Want::Open(epoch, answer) => {
                let handle = self.table.borrow().material.handle(&id);
                let lost =
                    || OpenError::Unavailable { id: id.clone(), reason: "it was taken again".to_owned() };
                answer(match result {
                    Ok(()) => handle.ok_or_else(lost),
                    Err(TakeError::Fenced(newest)) => Err(OpenError::Fenced { id, epoch, newest }),
                    Err(TakeError::Corrupt(what)) => Err(OpenError::Corrupt { id, what }),
                    Err(TakeError::Unavailable(reason)) => Err(OpenError::Unavailable { id, reason }),
                });
            }
            Want::Remove(answer) => answer(result.map_err(|error| match error {
                TakeError::Fenced(newest) => CommitError::Fenced { newest },
                TakeError::Corrupt(what) => CommitError::Corrupt { what },
                TakeError::Unavailable(reason) => CommitError::Unavailable { reason },
            })),
        }
    }

    /// Deletes the claims that were overtaken, and the logs that hold nothing any more.
    async fn clean(&self, obsolete: &[Path], logs: Vec<ReadLog>) -> Result<(), ObjectError> {
        self.objects.delete(obsolete).await?;
        if logs.is_empty() {
            return Ok(());
        }
        let paths = self.objects.list(&all_claims()).await?;
        let claimed: HashSet<(ReplicaId, Term)> = paths.iter().filter_map(Term::in_path).collect();
        for read in logs {
            if !read.known.iter().any(|known| claimed.contains(known)) {
                self.retire(&read).await?;
            }
        }
        Ok(())
    }

    /// Ends a log that no claim names any more and deletes its objects, except the foreign segments at its end:
    /// if its writer wakes, it must find its next number taken.
    async fn retire(&self, read: &ReadLog) -> Result<(), ObjectError> {
        let log = &read.log;
        if log.host() == self.host.as_str() {
            // It was sealed, so nothing came after what was read.
            end_claims(&self.objects, log, Body::Retire).await?;
        } else {
            let (number, nonce) = (read.upto + 1, self.objects.surroundings().nonce());
            let segment = Segment { log: log.clone(), number, nonce, body: Body::Retire };
            if !self.objects.create_blind(&log.segment(number), &segment.encode()).await? {
                // Its writer lives and has gone on.
                return Ok(());
            }
            if first_needed(&self.objects, log).await? > number {
                // It has gone on and deleted what it wrote there.
                return Ok(());
            }
        }
        let segments = self.objects.list(&log.segments()).await?;
        let mut keep = segments.len();
        for path in segments.iter().rev() {
            let Some(object) = self.objects.get(path).await? else { break };
            let segment = Segment::decode(&object).map_err(|broken| ObjectError::corrupt(path, broken))?;
            if matches!(segment.body, Body::Own { .. }) {
                break;
            }
            keep -= 1;
        }
        self.objects.delete(&segments[..keep]).await?;
        self.objects.delete(&self.objects.list(&log.manifests()).await?).await?;
        self.objects.delete(&self.objects.list(&log.checkpoints()).await?).await
    }
}
