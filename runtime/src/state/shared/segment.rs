//! One object of a log. The writer of a log puts *own* segments: what one group commit changed of its
//! partitions. Whoever takes partitions away from it puts a *foreign* segment at the next free number, and
//! nothing that comes after it counts for them.

use bytes::Bytes;
use hvm_types::{Epoch, ReplicaId};

use super::image::Change;
use super::names::{LogName, Nonce, Term};
use super::wire::{Broken, Checksum, Magic, Reader, Writer};

const MAGIC: Magic = *b"hvmlog\0\x01";

/// One segment of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) log: LogName,
    pub(super) number: u64,
    /// Of this object, so that its writer knows it again when an answer of the store was lost.
    pub(super) nonce: Nonce,
    pub(super) body: Body,
}

/// Who put the segment, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// The log's writer.
    Own {
        /// The checksum of the segment before.
        link: Checksum,
        entries: Vec<Entry>,
    },
    /// Somebody who took these claims away.
    Fence(Vec<Fence>),
    /// Another incarnation of the writer's host, or who took its last partition: the log has ended.
    Seal,
    /// As [`Seal`](Self::Seal), and all its partitions have other owners: its objects are being deleted.
    Retire,
}

/// What the writer of a log says of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// From here on the claim counts, with this state. This ends the taking over.
    Open { id: ReplicaId, term: Term, claim: Nonce, base: Base },
    /// Records were committed.
    Change { claim: Nonce, change: Change },
    /// The partition and all its state are gone.
    Remove { id: ReplicaId, term: Term, claim: Nonce },
}

/// The state that a claim starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    Empty,
    /// What this log says of an earlier claim, which ends here.
    Continue(Nonce),
    /// An encoded image.
    Inline(Bytes),
    Stored(ImageRef),
}

/// An image in a checkpoint of the same log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageRef {
    pub(super) checkpoint: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// One claim that was taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) id: ReplicaId,
    pub(super) claim: Nonce,
    /// The epoch that took it.
    pub(super) newest: Epoch,
}

impl Segment {
    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::new(MAGIC);
        writer.bytes(self.log.as_str().as_bytes()).number(self.number).fixed(&self.nonce.0);
        match &self.body {
            Body::Own { link, entries } => {
                writer.byte(0).fixed(&link.0).number(entries.len() as u64);
                entries.iter().for_each(|entry| entry.write(&mut writer));
            }
            Body::Fence(fences) => {
                writer.byte(1).number(fences.len() as u64);
                for fence in fences {
                    writer
                        .bytes(fence.id.to_string().as_bytes())
                        .fixed(&fence.claim.0)
                        .number(fence.newest.0);
                }
            }
            Body::Seal => {
                writer.byte(2);
            }
            Body::Retire => {
                writer.byte(3);
            }
        }
        writer.finish()
    }

    pub(super) fn decode(object: &Bytes) -> Result<Self, Broken> {
        let mut reader = Reader::open(MAGIC, object)?;
        let log = reader.parsed()?;
        let number = reader.number()?;
        let nonce = Nonce(reader.fixed()?);
        let body = match reader.byte()? {
            0 => Body::Own { link: Checksum(reader.fixed()?), entries: reader.list(Entry::read)? },
            1 => Body::Fence(reader.list(|reader| {
                let (id, claim) = (reader.parsed()?, Nonce(reader.fixed()?));
                Ok(Fence { id, claim, newest: Epoch(reader.number()?) })
            })?),
            2 => Body::Seal,
            3 => Body::Retire,
            _ => return Err(Broken("has an unknown kind")),
        };
        reader.end(Self { log, number, nonce, body })
    }
}

impl Entry {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Open { id, term, claim, base } => {
                writer.byte(0);
                write_claim(writer, id, *term, *claim);
                base.write(writer);
            }
            Self::Change { claim, change } => {
                writer.byte(1).fixed(&claim.0);
                change.write(writer);
            }
            Self::Remove { id, term, claim } => {
                writer.byte(2);
                write_claim(writer, id, *term, *claim);
            }
        }
    }

    fn read(reader: &mut Reader) -> Result<Self, Broken> {
        Ok(match reader.byte()? {
            0 => {
                let (id, term, claim) = read_claim(reader)?;
                Self::Open { id, term, claim, base: Base::read(reader)? }
            }
            1 => Self::Change { claim: Nonce(reader.fixed()?), change: Change::read(reader)? },
            2 => {
                let (id, term, claim) = read_claim(reader)?;
                Self::Remove { id, term, claim }
            }
            _ => return Err(Broken("has an entry of an unknown kind")),
        })
    }
}

/// Writes what names one claim.
pub(super) fn write_claim(writer: &mut Writer, id: &ReplicaId, term: Term, claim: Nonce) {
    writer.bytes(id.to_string().as_bytes()).number(term.epoch.0).number(term.turn).fixed(&claim.0);
}

pub(super) fn read_claim(reader: &mut Reader) -> Result<(ReplicaId, Term, Nonce), Broken> {
    let id = reader.parsed()?;
    let term = Term { epoch: Epoch(reader.number()?), turn: reader.number()? };
    Ok((id, term, Nonce(reader.fixed()?)))
}

impl Base {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Empty => {
                writer.byte(0);
            }
            Self::Continue(claim) => {
                writer.byte(1).fixed(&claim.0);
            }
            Self::Inline(image) => {
                writer.byte(2).bytes(image);
            }
            Self::Stored(image) => {
                writer.byte(3);
                image.write(writer);
            }
        }
    }

    fn read(reader: &mut Reader) -> Result<Self, Broken> {
        Ok(match reader.byte()? {
            0 => Self::Empty,
            1 => Self::Continue(Nonce(reader.fixed()?)),
            2 => Self::Inline(reader.bytes()?),
            3 => Self::Stored(ImageRef::read(reader)?),
            _ => return Err(Broken("has a base of an unknown kind")),
        })
    }
}

impl ImageRef {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.number(self.checkpoint).number(self.offset).number(self.length);
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Self, Broken> {
        Ok(Self { checkpoint: reader.number()?, offset: reader.number()?, length: reader.number()? })
    }
}

#[cfg(test)]
mod tests {
    use hvm_types::Sequence;

    use super::*;

    fn segment(body: Body) -> Segment {
        let log = format!("host-{:032x}", 7).parse().expect("a valid log");
        Segment { log, number: 3, nonce: Nonce([9; 16]), body }
    }

    fn every_kind() -> Vec<Segment> {
        let id: ReplicaId = "ledger/accounts/0".parse().expect("a valid id");
        let (claim, term) = (Nonce([1; 16]), Term { epoch: Epoch(4), turn: 1 });
        let image = ImageRef { checkpoint: 1, offset: 2, length: 3 };
        let bases = [
            Base::Empty,
            Base::Continue(Nonce([2; 16])),
            Base::Inline(Bytes::from_static(b"x")),
            Base::Stored(image),
        ];
        let mut entries: Vec<_> =
            bases.into_iter().map(|base| Entry::Open { id: id.clone(), term, claim, base }).collect();
        let writes = vec![(Bytes::from_static(b"k"), Some(Bytes::new())), (Bytes::from_static(b"l"), None)];
        let change = Change { id: id.clone(), after: Sequence(4), last: Sequence(6), writes };
        entries.push(Entry::Change { claim, change });
        entries.push(Entry::Remove { id: id.clone(), term, claim });
        vec![
            segment(Body::Own { link: Checksum([5; 16]), entries }),
            segment(Body::Fence(vec![Fence { id, claim, newest: Epoch(5) }])),
            segment(Body::Seal),
            segment(Body::Retire),
        ]
    }

    #[test]
    fn every_kind_of_segment_reads_back() {
        for segment in every_kind() {
            assert_eq!(Segment::decode(&segment.encode()), Ok(segment));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        for segment in every_kind() {
            let whole = segment.encode();
            for bit in 0..whole.len() * 8 {
                let mut damaged = whole.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(Segment::decode(&Bytes::from(damaged)).is_err(), "bit {bit} was flipped unseen");
            }
            for length in 0..whole.len() {
                assert!(Segment::decode(&whole.slice(..length)).is_err(), "cut to {length} bytes unseen");
            }
        }
    }

    #[test]
    fn a_format_of_another_version_is_named_as_such() {
        let whole = Writer::new(*b"hvmlog\0\x02").finish();
        let error = Segment::decode(&whole).expect_err("another version");
        assert_eq!(error, Broken("has a format that this program does not know"));
    }
}
