//! Taking partitions: claim, end the claims before, read what they left.
//!
//! A claimant lists the claims, creates its own, and lists again: so of two claimants, at least the higher one
//! sees the other. Then it goes down the lower claims. Each is ended in its log first, and only then is the
//! log read; the first one whose own taking over was completed has the state, because it had ended all below
//! it. Many partitions that wait together share one foreign segment and one reading per log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::StreamExt;
use hvm_types::{Epoch, ReplicaId};

use super::claim::Claim;
use super::core::{Core, Standing};
use super::image::Image;
use super::log::end_claims;
use super::material::Material;
use super::names::{LogName, Nonce, Term, claims};
use super::objects::{Created, ObjectError};
use super::replay::{Found, LACKS_STATE, Reading, read_log};
use super::segment::{Body, Fence};
use super::wire::Broken;

/// Stores' operations at once.
const AT_ONCE: usize = 16;
/// How often a claim is tried against others that are made at the same time.
const CLAIM_TRIES: usize = 16;

/// How often a log is fenced again because its writer had collected the number meanwhile.
const FENCE_TRIES: usize = 16;

/// Why a partition was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TakeError {
    Fenced(Epoch),
    Corrupt(String),
    Unavailable(String),
}

impl From<ObjectError> for TakeError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Unavailable { .. } => Self::Unavailable(error.to_string()),
            ObjectError::Corrupt { .. } => Self::Corrupt(error.to_string()),
        }
    }
}

/// The epoch that a partition is claimed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimFor {
    Epoch(Epoch),
    /// Whatever is the newest, to remove it.
    Removal,
}

/// A claim that stands, and the terms of those below it, the highest first.
pub(super) struct Claimed {
    pub(super) claim: Claim,
    pub(super) lower: Vec<Term>,
    /// The claim under which this engine had the partition at that time.
    pub(super) had: Option<Nonce>,
}

/// What a taken partition begins with.
pub(super) enum Taken {
    Empty,
    /// This engine's own state under an earlier claim.
    Own(Nonce),
    Image(Image),
}

/// A log that was read, and what it said at that segment.
pub(super) struct ReadLog {
    pub(super) log: LogName,
    pub(super) upto: u64,
    pub(super) known: Vec<(ReplicaId, Term)>,
}

/// One partition on the way.
struct Taking {
    claimed: Claimed,
    next: VecDeque<Term>,
    result: Option<Result<Taken, TakeError>>,
}

impl<M: Material> Core<M> {
    /// Claims a partition. `None` when it is to be removed and nobody has claimed it.
    pub(super) async fn claim(
        &self,
        id: &ReplicaId,
        claim_for: ClaimFor,
    ) -> Result<Option<Claimed>, TakeError> {
        for _ in 0..CLAIM_TRIES {
            let newest = self.terms(id).await?.pop();
            let term = match (claim_for, newest) {
                (ClaimFor::Removal, None) => return Ok(None),
                (ClaimFor::Removal, Some(newest)) => Term { turn: newest.turn + 1, ..newest },
                (ClaimFor::Epoch(epoch), Some(newest)) if newest.epoch > epoch => {
                    return Err(TakeError::Fenced(newest.epoch));
                }
                (ClaimFor::Epoch(epoch), Some(newest)) if newest.epoch == epoch => {
                    let Some(found) = self.read_claim(id, newest).await? else { continue };
                    if self.is_unfinished(&found) {
                        return self.confirm(found).await.map(Some);
                    }
                    #[cfg(feature = "planted-faults")]
                    if self.faults.reuse_epochs {
                        let (name, log) =
                            (self.objects.surroundings().nonce(), self.table.borrow().log.clone());
                        return self.confirm(Claim { name, log, ..found }).await.map(Some);
                    }
                    if found.log.host() != self.host.as_str() {
                        return Err(TakeError::Fenced(epoch));
                    }
                    Term { epoch, turn: newest.turn + 1 }
                }
                (ClaimFor::Epoch(epoch), _) => Term { epoch, turn: 0 },
            };
            let log = self.table.borrow().log.clone();
            let claim = Claim { id: id.clone(), term, name: self.objects.surroundings().nonce(), log };
            match self.objects.create(&term.path(id), &claim.encode()).await? {
                Created::Yes => return self.confirm(claim).await.map(Some),
                Created::Exists(_) => {}
            }
        }
        Err(TakeError::Unavailable("others claim it at the same time".to_owned()))
    }

    /// Whether a claim is one of this log whose taking over was begun and neither completed nor ended.
    fn is_unfinished(&self, claim: &Claim) -> bool {
        let table = self.table.borrow();
        let completed = table.owned.get(&claim.id).is_some_and(|owned| owned.term >= claim.term);
        claim.log == table.log && !completed && !table.ended.contains_key(&claim.name)
    }

    /// Looks whether a higher claim came while this one was made.
    async fn confirm(&self, claim: Claim) -> Result<Claimed, TakeError> {
        let mut terms = self.terms(&claim.id).await?;
        let newest = terms.pop();
        if newest != Some(claim.term) {
            return Err(match newest {
                Some(newest) if newest > claim.term => TakeError::Fenced(newest.epoch),
                _ => TakeError::Unavailable("it was removed at the same time".to_owned()),
            });
        }
        terms.reverse();
        let had = self.table.borrow().owned.get(&claim.id).map(|owned| owned.claim);
        Ok(Claimed { claim, lower: terms, had })
    }

    /// The terms of all claims to a partition, in their order.
    pub(super) async fn terms(&self, id: &ReplicaId) -> Result<Vec<Term>, TakeError> {
        let paths = self.objects.list(&claims(id)).await?;
        let mut terms = Vec::new();
        for path in paths {
            match Term::in_path(&path) {
                Some((_, term)) => terms.push(term),
                None => return Err(TakeError::Corrupt(format!("`{path}` is not the path of a claim"))),
            }
        }
        terms.sort();
        Ok(terms)
    }

    pub(super) async fn read_claim(&self, id: &ReplicaId, term: Term) -> Result<Option<Claim>, TakeError> {
        let path = term.path(id);
        let Some(object) = self.objects.get(&path).await? else { return Ok(None) };
        let claim = Claim::decode(&object).map_err(|broken| ObjectError::corrupt(&path, broken))?;
        if claim.id != *id || claim.term != term {
            return Err(TakeError::Corrupt(format!("`{path}` belongs to another place")));
        }
        Ok(Some(claim))
    }

    /// Ends the claims below and finds the state they left, for many partitions at once.
    pub(super) async fn take(
        &self,
        claimed: Vec<Claimed>,
    ) -> (Vec<(Claimed, Result<Taken, TakeError>)>, Vec<ReadLog>) {
        let mut takings: Vec<Taking> = claimed
            .into_iter()
            .map(|claimed| Taking { next: claimed.lower.clone().into(), claimed, result: None })
            .collect();
        let mut logs = Vec::new();
        loop {
            let mut by_log: BTreeMap<LogName, Vec<(usize, Claim)>> = BTreeMap::new();
            for (index, claim) in self.next_claims(&mut takings).await {
                by_log.entry(claim.log.clone()).or_default().push((index, claim));
            }
            if by_log.is_empty() {
                break;
            }
            for (log, claims) in by_log {
                match self.end_and_read(&log, &claims, &takings).await {
                    Ok((upto, mut reading)) => {
                        for (index, claim) in &claims {
                            takings[*index].result = match reading.found.remove(&claim.name) {
                                Some(Found::State(image)) => Some(Ok(Taken::Image(image))),
                                Some(Found::Removed) => Some(Ok(Taken::Empty)),
                                None if reading.lacking.contains(&claim.name) => {
                                    let lacks = ObjectError::corrupt(&log.segments(), Broken(LACKS_STATE));
                                    Some(Err(lacks.into()))
                                }
                                None => None,
                            };
                        }
                        logs.push(ReadLog { log, upto, known: reading.known });
                    }
                    Err(error) => {
                        for (index, _) in &claims {
                            takings[*index].result = Some(Err(error.clone().into()));
                        }
                    }
                }
            }
        }
        let mut results = Vec::new();
        for Taking { claimed, result, .. } in takings {
            let mut result = result.unwrap_or(Ok(Taken::Empty));
            if let Err(TakeError::Corrupt(_)) = result {
                match self.confirm(claimed.claim.clone()).await {
                    // A higher claim has taken it all meanwhile, and what was read here is being deleted.
                    Err(error) => result = Err(error),
                    // So has one of this engine, whose end was unknown.
                    Ok(now) if now.lower != claimed.lower => {
                        result = Err(TakeError::Unavailable("its claims changed meanwhile".to_owned()));
                    }
                    Ok(_) => {}
                }
            }
            results.push((claimed, result));
        }
        (results, logs)
    }

    /// The next lower claim in another log of each partition that has no result yet.
    async fn next_claims(&self, takings: &mut [Taking]) -> Vec<(usize, Claim)> {
        let undecided = takings.iter_mut().enumerate().filter(|(_, taking)| taking.result.is_none());
        let looked: Vec<_> = futures::stream::iter(undecided.map(|(index, taking)| async move {
            let id = &taking.claimed.claim.id;
            while let Some(term) = taking.next.pop_front() {
                match self.read_claim(id, term).await {
                    Ok(Some(claim)) if claim.log == taking.claimed.claim.log => {
                        if let Some(taken) = self.own(&claim) {
                            taking.result = Some(Ok(taken));
                            return None;
                        }
                    }
                    Ok(Some(claim)) => return Some((index, claim)),
                    Ok(None) => {
                        let reason = "its claims changed meanwhile".to_owned();
                        taking.result = Some(Err(TakeError::Unavailable(reason)));
                        return None;
                    }
                    Err(error) => {
                        taking.result = Some(Err(error));
                        return None;
                    }
                }
            }
            taking.result = Some(Ok(Taken::Empty));
            None
        }))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
        looked.into_iter().flatten().collect()
    }

    /// What this engine has of a claim of its own log; `None` where that was never completed.
    fn own(&self, claim: &Claim) -> Option<Taken> {
        let table = self.table.borrow();
        let owned = table.owned.get(&claim.id).filter(|owned| owned.claim == claim.name)?;
        Some(match owned.standing {
            Standing::Active | Standing::Fenced(_) => Taken::Own(claim.name),
            Standing::Removed => Taken::Empty,
        })
    }

    async fn end_and_read(
        &self,
        log: &LogName,
        claims: &[(usize, Claim)],
        takings: &[Taking],
    ) -> Result<(u64, Reading), ObjectError> {
        let body = if log.host() == self.host.as_str() {
            // This engine is the newer one of the host, so all of the older one's claims end.
            Body::Seal
        } else {
            let fence = |(index, claim): &(usize, Claim)| Fence {
                id: claim.id.clone(),
                claim: claim.name,
                newest: takings[*index].claimed.claim.term.epoch,
            };
            Body::Fence(claims.iter().map(fence).collect())
        };
        let wanted: BTreeSet<Nonce> = claims.iter().map(|(_, claim)| claim.name).collect();
        for _ in 0..FENCE_TRIES {
            let upto = end_claims(&self.objects, log, body.clone()).await?;
            let reading = read_log(&self.objects, log, Some(upto), &wanted).await?;
            // Else its writer may have been there before, and deleted what it wrote: then the number was free
            // again, but nothing has ended.
            if reading.first <= upto {
                return Ok((upto, reading));
            }
            #[cfg(feature = "planted-faults")]
            if self.faults.trust_free_numbers {
                return Ok((upto, reading));
            }
        }
        let (path, reason) = (log.segments().to_string(), "its writer collects all the time".to_owned());
        Err(ObjectError::Unavailable { action: "end claims in", path, reason })
    }
}
