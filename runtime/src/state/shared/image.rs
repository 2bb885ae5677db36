//! The whole state of one partition as bytes, and what one batch changes of it. The keys and values are the
//! engine's own entries; nothing here knows what they mean.

use std::collections::BTreeMap;

use bytes::Bytes;
use hvm_types::{ReplicaId, Sequence};

use super::wire::{Broken, Magic, Reader, Writer};

const MAGIC: Magic = *b"hvmimg\0\x01";

/// A partition's state as of one record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Image {
    /// The last record in it.
    pub(super) sequence: Sequence,
    pub(super) entries: BTreeMap<Bytes, Bytes>,
}

/// What one batch changed of a partition: all of its records together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) id: ReplicaId,
    /// The record before the first one here.
    pub(super) after: Sequence,
    /// The last record here.
    pub(super) last: Sequence,
    /// The entries that were written; `None` is deleted.
    pub(super) writes: Vec<(Bytes, Option<Bytes>)>,
}

impl Image {
    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::new(MAGIC);
        writer.number(self.sequence.0).number(self.entries.len() as u64);
        for (key, value) in &self.entries {
            writer.bytes(key).bytes(value);
        }
        writer.finish()
    }

    pub(super) fn decode(object: &Bytes) -> Result<Self, Broken> {
        let mut reader = Reader::open(MAGIC, object)?;
        let sequence = Sequence(reader.number()?);
        let entries = reader.list(|reader| Ok((reader.bytes()?, reader.bytes()?)))?;
        reader.end(Self { sequence, entries: entries.into_iter().collect() })
    }

    /// Applies the next change. One that does not follow means that records are missing.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), Broken> {
        if change.after != self.sequence {
            return Err(Broken("lacks records in the middle"));
        }
        self.sequence = change.last;
        for (key, value) in &change.writes {
            match value {
                Some(value) => drop(self.entries.insert(key.clone(), value.clone())),
                None => drop(self.entries.remove(key)),
            }
        }
        Ok(())
    }
}

impl Change {
    /// Bytes of its entries, about.
    pub(super) fn bytes(&self) -> u64 {
        let entry =
            |(key, value): &(Bytes, Option<Bytes>)| key.len() + value.as_ref().map_or(0, Bytes::len) + 17;
        self.writes.iter().map(entry).sum::<usize>() as u64
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.bytes(self.id.to_string().as_bytes()).number(self.after.0).number(self.last.0);
        writer.number(self.writes.len() as u64);
        for (key, value) in &self.writes {
            writer.bytes(key);
            match value {
                Some(value) => writer.byte(1).bytes(value),
                None => writer.byte(0),
            };
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Self, Broken> {
        Ok(Self {
            id: reader.parsed()?,
            after: Sequence(reader.number()?),
            last: Sequence(reader.number()?),
            writes: reader.list(|reader| {
                let key = reader.bytes()?;
                let value = match reader.byte()? {
                    0 => None,
                    1 => Some(reader.bytes()?),
                    _ => return Err(Broken("has an entry of an unknown kind")),
                };
                Ok((key, value))
            })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_does_not_follow_is_refused() {
        let change = |after, last| Change {
            id: "ledger/accounts/0".parse().expect("a valid id"),
            after: Sequence(after),
            last: Sequence(last),
            writes: vec![(Bytes::from_static(b"k"), Some(Bytes::from(last.to_string())))],
        };
        let mut image = Image::default();
        assert_eq!(image.apply(&change(0, 2)), Ok(()));
        assert!(image.apply(&change(1, 3)).is_err(), "a record twice");
        assert!(image.apply(&change(3, 4)).is_err(), "a record is missing");
        assert_eq!(image.apply(&change(2, 3)), Ok(()));
        assert_eq!(Image::decode(&image.encode()), Ok(image.clone()));
        assert_eq!(image.entries.values().collect::<Vec<_>>(), [&Bytes::from_static(b"3")]);
    }
}
