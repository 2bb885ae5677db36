//! A claim: the object with which a host says that it owns a partition from a term on. That it was created
//! decides who may try; the [`Open`](super::segment::Entry::Open) entry in the claimant's log says that the
//! taking over is complete.

use bytes::Bytes;
use hvm_types::ReplicaId;

use super::names::{LogName, Nonce, Term};
use super::segment::{read_claim, write_claim};
use super::wire::{Broken, Magic, Reader, Writer};

const MAGIC: Magic = *b"hvmclm\0\x01";

/// A claim to a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) id: ReplicaId,
    pub(super) term: Term,
    /// Its name: never drawn twice, while terms come again after a removal.
    pub(super) name: Nonce,
    /// The log that the claimant writes to.
    pub(super) log: LogName,
}

impl Claim {
    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::new(MAGIC);
        write_claim(&mut writer, &self.id, self.term, self.name);
        writer.bytes(self.log.as_str().as_bytes());
        writer.finish()
    }

    pub(super) fn decode(object: &Bytes) -> Result<Self, Broken> {
        let mut reader = Reader::open(MAGIC, object)?;
        let (id, term, name) = read_claim(&mut reader)?;
        let log = reader.parsed()?;
        reader.end(Self { id, term, name, log })
    }
}
