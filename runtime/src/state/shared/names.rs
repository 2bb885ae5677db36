//! Names of what is in the store, and the paths they stand at.
//!
//! ```text
//! logs/LOG/SEGMENT                      one group commit of all partitions of LOG's writer
//! partitions/DEPLOYMENT/GROUP/INDEX/EPOCH-TURN   a claim: who owns the partition from this term on
//! checkpoints/LOG/NUMBER                images of many partitions in one object
//! manifests/LOG/NUMBER                  which images and which segments of LOG are still needed
//! checks/NAME                           tries of the store's conditional puts, deleted at once
//! identity                              by which two hosts know that they reach the same store
//! ```

use std::fmt;
use std::str::FromStr;

use hvm_types::{Epoch, HostId, ReplicaId};
use object_store::path::Path;

/// Random bytes that nobody else draws: the name of a claim, the mark of a writer in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Nonce(pub(super) [u8; 16]);

/// The log of one incarnation of a host's engine: `HOST-RANDOM`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LogName(String);

impl LogName {
    pub(super) fn new(host: &HostId, random: Nonce) -> Self {
        Self(format!("{host}-{:032x}", u128::from_be_bytes(random.0)))
    }

    /// The host whose engine writes it.
    pub(super) fn host(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(host, _)| host)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn segment(&self, number: u64) -> Path {
        Path::from(format!("logs/{}/{number:020}", self.0))
    }

    pub(super) fn segments(&self) -> Path {
        Path::from(format!("logs/{}", self.0))
    }

    pub(super) fn checkpoint(&self, number: u64) -> Path {
        Path::from(format!("checkpoints/{}/{number:020}", self.0))
    }

    pub(super) fn checkpoints(&self) -> Path {
        Path::from(format!("checkpoints/{}", self.0))
    }

    pub(super) fn manifest(&self, number: u64) -> Path {
        Path::from(format!("manifests/{}/{number:020}", self.0))
    }

    pub(super) fn manifests(&self) -> Path {
        Path::from(format!("manifests/{}", self.0))
    }
}

impl FromStr for LogName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, random) = text.rsplit_once('-').ok_or(())?;
        let valid = host.parse::<HostId>().is_ok() && random.len() == 32;
        if valid { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number in the last part of a path, if it is one.
pub(super) fn number_in(path: &Path) -> Option<u64> {
    path.filename()?.parse().ok()
}

/// Orders the claims to a partition. The turn counts the incarnations of one host in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Term {
    pub(super) epoch: Epoch,
    pub(super) turn: u64,
}

impl Term {
    /// Where the claim to a partition at this term stands.
    pub(super) fn path(self, id: &ReplicaId) -> Path {
        Path::from(format!("partitions/{id}/{:020}-{:010}", self.epoch.0, self.turn))
    }

    /// The partition and the term that a claim's path says.
    pub(super) fn in_path(path: &Path) -> Option<(ReplicaId, Self)> {
        let (rest, last) = path.as_ref().rsplit_once('/')?;
        let id = rest.strip_prefix("partitions/")?.parse().ok()?;
        let (epoch, turn) = last.split_once('-')?;
        Some((id, Self { epoch: Epoch(epoch.parse().ok()?), turn: turn.parse().ok()? }))
    }
}

/// All claims to a partition.
pub(super) fn claims(id: &ReplicaId) -> Path {
    Path::from(format!("partitions/{id}"))
}

/// All claims.
pub(super) fn all_claims() -> Path {
    Path::from("partitions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claims_path_says_its_partition_and_term() {
        let id: ReplicaId = "ledger/accounts/12".parse().expect("a valid id");
        let term = Term { epoch: Epoch(7), turn: 3 };
        assert_eq!(Term::in_path(&term.path(&id)), Some((id, term)));
        assert_eq!(Term::in_path(&Path::from("partitions/ledger/accounts/12/x")), None);
    }

    #[test]
    fn a_logs_name_says_its_host() {
        let name = LogName::new(&"rack-1-a".parse().expect("a valid host"), Nonce([0xab; 16]));
        assert_eq!(name.host(), "rack-1-a");
        assert_eq!(name.as_str().parse(), Ok(name.clone()));
        assert_eq!(number_in(&name.segment(12)), Some(12));
    }
}
