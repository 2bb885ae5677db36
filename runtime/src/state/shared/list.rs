//! Listing all partitions in the store, whoever owns them. It changes nothing; what others commit meanwhile may
//! or may not be in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hvm_types::{Epoch, ReplicaId};

use super::core::{Core, Standing};
use super::material::Material;
use super::names::{LogName, Nonce, Term, all_claims};
use super::objects::ObjectError;
use super::replay::{Found, LACKS_STATE, read_log};
use super::take::TakeError;
use super::wire::Broken;
use crate::state::ReadError;

/// How often a listing that finds damage begins again.
const LISTINGS: usize = 3;

impl From<TakeError> for ReadError {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Fenced(newest) => Self::Fenced { newest },
            TakeError::Corrupt(what) => Self::Corrupt { what },
            TakeError::Unavailable(reason) => Self::Unavailable { reason },
        }
    }
}

impl<M: Material> Core<M> {
    pub(super) async fn list(&self) -> Result<Vec<M::Info>, ReadError> {
        let mut tries = 0;
        loop {
            match self.try_list().await {
                // What is taken and deleted while it is read looks like damage once.
                Err(ReadError::Corrupt { .. }) if tries < LISTINGS => tries += 1,
                result => return result,
            }
        }
    }

    async fn try_list(&self) -> Result<Vec<M::Info>, ReadError> {
        let paths = self.objects.list(&all_claims()).await.map_err(TakeError::from)?;
        let mut terms: BTreeMap<ReplicaId, VecDeque<Term>> = BTreeMap::new();
        for (id, term) in paths.iter().filter_map(Term::in_path) {
            terms.entry(id).or_default().push_front(term);
        }
        let mut found = BTreeMap::new();
        while !terms.is_empty() {
            let mut by_log: BTreeMap<LogName, Vec<(ReplicaId, Epoch, Nonce)>> = BTreeMap::new();
            for (id, terms) in &mut terms {
                let Some(term) = terms.pop_front() else { continue };
                let Some(claim) = self.read_claim(id, term).await? else { continue };
                let own = self.table.borrow().owned.get(id).filter(|own| own.claim == claim.name).cloned();
                match own.map(|own| own.standing) {
                    Some(Standing::Active) => {
                        let info = self.table.borrow().material.info(id, term.epoch, &claim.log, None)?;
                        found.insert(id.clone(), Some(info));
                    }
                    Some(Standing::Removed) => drop(found.insert(id.clone(), None)),
                    Some(Standing::Fenced(_)) | None => {
                        by_log.entry(claim.log).or_default().push((id.clone(), term.epoch, claim.name));
                    }
                }
            }
            for (log, claims) in by_log {
                let read = self.list_log(&log, &claims).await.map_err(TakeError::from)?;
                for ((id, epoch, _), state) in claims.iter().zip(read) {
                    let info = match state {
                        Some(Found::State(image)) => {
                            Some(self.table.borrow().material.info(id, *epoch, &log, Some(&image))?)
                        }
                        Some(Found::Removed) => None,
                        None => continue,
                    };
                    found.insert(id.clone(), info);
                }
            }
            terms.retain(|id, terms| !terms.is_empty() && !found.contains_key(id));
        }
        Ok(found.into_values().flatten().collect())
    }

    async fn list_log(
        &self,
        log: &LogName,
        claims: &[(ReplicaId, Epoch, Nonce)],
    ) -> Result<Vec<Option<Found>>, ObjectError> {
        let wanted: BTreeSet<Nonce> = claims.iter().map(|(_, _, claim)| *claim).collect();
        let mut reading = read_log(&self.objects, log, None, &wanted).await?;
        if !reading.lacking.is_empty() {
            return Err(ObjectError::corrupt(&log.segments(), Broken(LACKS_STATE)));
        }
        Ok(claims.iter().map(|(_, _, claim)| reading.found.remove(claim)).collect())
    }
}
