//! Where things stand in the database.
//!
//! One *meta* keyspace and [`BUCKETS`] keyspaces for the partitions' own keys, all fixed: keyspaces are dear
//! to make, so a partition is a prefix, not a keyspace.
//!
//! | Keyspace | Key | Value |
//! |---|---|---|
//! | meta | `p` replica id | its number |
//! | meta | `h` number | its [`Head`] |
//! | meta | `k` number | its [`Past`], once it kept a record |
//! | meta | `x` number | removed, its keys not purged yet |
//! | meta | `n` | the next number |
//! | meta | ff×8 `chain` | [`Chain`], in every batch |
//! | bucket | number `d` length bucket key | a value |
//! | bucket | number `i` idempotency key | its answer |
//! | bucket | number `o` ordinal | an idempotency key, in order of age |
//! | bucket | number `r` sequence | a kept record, whole |
//! | bucket | number `s` | the version of its state's layout, once a record said one |
//! | bucket | ff×8 `mark` | count of the last batch that touched this keyspace |
//!
//! Numbers are 8 bytes, big-endian, and never used again.

use hvm_types::{Epoch, Meter, ReplicaId, Sequence};
use serde::{Deserialize, Serialize};

/// Keyspaces for partitions' keys.
pub(super) const BUCKETS: usize = 16;
/// Keyspaces in all: the buckets and, last, meta.
pub(super) const SPACES: usize = BUCKETS + 1;

const META: usize = BUCKETS;
const CHAIN_KEY: &[u8] = b"\xff\xff\xff\xff\xff\xff\xff\xffchain";
const MARK_KEY: &[u8] = b"\xff\xff\xff\xff\xff\xff\xff\xffmark";
const DATA: u8 = b'd';
const ANSWER: u8 = b'i';
const ORDER: u8 = b'o';
const RECORD: u8 = b'r';
const SCHEMA: u8 = b's';

/// A key and the keyspace it stands in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) space: usize,
    pub(super) key: Vec<u8>,
}

/// A partition's number: its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Number(pub(super) u64);

impl Number {
    fn space(self) -> usize {
        usize::try_from(self.0 % BUCKETS as u64).expect("a remainder is small")
    }

    fn place(self, kind: u8, parts: &[&[u8]]) -> Place {
        let mut key = Vec::with_capacity(9 + parts.iter().map(|part| part.len()).sum::<usize>());
        key.extend_from_slice(&self.0.to_be_bytes());
        key.push(kind);
        for part in parts {
            key.extend_from_slice(part);
        }
        Place { space: self.space(), key }
    }

    /// All keys of the partition, as a prefix.
    pub(super) fn everything(self) -> Place {
        Place { space: self.space(), key: self.0.to_be_bytes().to_vec() }
    }

    /// All keys of all buckets, as a prefix; then follow length and name of a bucket.
    pub(super) fn data(self) -> Place {
        self.place(DATA, &[])
    }

    /// All answers, as a prefix.
    pub(super) fn answers(self) -> Place {
        self.place(ANSWER, &[])
    }

    /// All keys of a bucket, as a prefix.
    pub(super) fn bucket(self, bucket: &str) -> Place {
        let length = u8::try_from(bucket.len()).expect("names of buckets are bounded by the caller");
        self.place(DATA, &[&[length], bucket.as_bytes()])
    }

    pub(super) fn value(self, bucket: &str, key: &str) -> Place {
        let mut place = self.bucket(bucket);
        place.key.extend_from_slice(key.as_bytes());
        place
    }

    pub(super) fn answer(self, key: &str) -> Place {
        self.place(ANSWER, &[key.as_bytes()])
    }

    pub(super) fn order(self, ordinal: u64) -> Place {
        self.place(ORDER, &[&ordinal.to_be_bytes()])
    }

    pub(super) fn record(self, sequence: u64) -> Place {
        self.place(RECORD, &[&sequence.to_be_bytes()])
    }

    /// Beside the head and not in it: programs that don't know it pass it over.
    pub(super) fn schema(self) -> Place {
        self.place(SCHEMA, &[])
    }

    pub(super) fn past(self) -> Place {
        meta(b'k', &self.0.to_be_bytes())
    }

    pub(super) fn head(self) -> Place {
        meta(b'h', &self.0.to_be_bytes())
    }

    pub(super) fn purge(self) -> Place {
        meta(b'x', &self.0.to_be_bytes())
    }
}

fn meta(kind: u8, rest: &[u8]) -> Place {
    Place { space: META, key: [&[kind], rest].concat() }
}

pub(super) fn name(id: &ReplicaId) -> Place {
    meta(b'p', id.to_string().as_bytes())
}

/// All names, as a prefix; the rest of the key is the id.
pub(super) fn names() -> Place {
    meta(b'p', &[])
}

/// All purges, as a prefix; the rest of the key is the number.
pub(super) fn purges() -> Place {
    meta(b'x', &[])
}

pub(super) fn next_number() -> Place {
    meta(b'n', &[])
}

pub(super) fn chain() -> Place {
    Place { space: META, key: CHAIN_KEY.to_vec() }
}

pub(super) fn is_chain(key: &[u8]) -> bool {
    key == CHAIN_KEY
}

pub(super) fn mark(space: usize) -> Place {
    Place { space, key: MARK_KEY.to_vec() }
}

/// The newest record of a partition. It is rewritten with each one, in the same batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The partition it belongs to, so that a misplaced one is found.
    pub(super) number: Number,
    pub(super) epoch: Epoch,
    pub(super) sequence: Sequence,
    /// Bytes of keys and values.
    pub(super) stored: u64,
    /// Digest of the last record's request, if it had an idempotency key.
    pub(super) request: Option<[u8; 32]>,
    /// Time of the last record.
    pub(super) unix_millis: u64,
    /// Sum over all records.
    pub(super) meter: Meter,
    pub(super) answers: Answers,
}

impl Head {
    /// No record was ever committed.
    pub(super) fn empty(number: Number, epoch: Epoch) -> Self {
        Self {
            number,
            epoch,
            sequence: Sequence(0),
            stored: 0,
            request: None,
            unix_millis: 0,
            meter: Meter::default(),
            answers: Answers::default(),
        }
    }
}

/// The window of stored answers: those with ordinals `first..next`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answers {
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) bytes: u64,
    /// Time of the oldest.
    pub(super) oldest_millis: u64,
}

/// The kept records: those with sequences `first..next`. They have no gaps; those of `swept..first` are being
/// deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Past {
    /// The partition it belongs to, so that a misplaced one is found.
    pub(super) number: Number,
    pub(super) swept: u64,
    pub(super) first: u64,
    pub(super) next: u64,
    /// Bytes of all kept records.
    pub(super) bytes: u64,
    /// Bytes of the oldest.
    pub(super) oldest_bytes: u64,
    /// Time of the oldest.
    pub(super) oldest_millis: u64,
}

impl Past {
    /// No record was ever kept.
    pub(super) const fn none(number: Number) -> Self {
        Self { number, swept: 0, first: 0, next: 0, bytes: 0, oldest_bytes: 0, oldest_millis: 0 }
    }
}

/// One entry of the window's order.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrderEntry {
    pub(super) key: String,
    pub(super) bytes: u64,
    pub(super) unix_millis: u64,
}

/// A stored answer without its body, which follows as the tail.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AnswerEntry {
    pub(super) sequence: Sequence,
    pub(super) request: [u8; 32],
    pub(super) status: u16,
    pub(super) headers: Vec<(String, Vec<u8>)>,
}

/// Links the batches: every one carries it, counted without a gap. With it a lost batch is found, in the
/// journal and after recovery, keyspace by keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    /// The database, so that bytes which a guest wrote can't pass for a batch.
    pub(super) database: [u8; 16],
    /// Batches until now.
    pub(super) count: u64,
    /// The last batch that touched each keyspace.
    pub(super) marks: [u64; SPACES],
}

impl Chain {
    const BYTES: usize = 16 + 8 + 8 * SPACES;

    pub(super) const fn new(database: [u8; 16]) -> Self {
        Self { database, count: 0, marks: [0; SPACES] }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.database);
        let counts = std::iter::once(self.count).chain(self.marks);
        for (slot, count) in bytes[16..].chunks_exact_mut(8).zip(counts) {
            slot.copy_from_slice(&count.to_le_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let (database, counts) = bytes.split_first_chunk::<16>()?;
        let (counts, _) = counts.as_chunks::<8>();
        let mut counts = counts.iter().map(|slot| u64::from_le_bytes(*slot));
        let count = counts.next()?;
        let mut marks = [0; SPACES];
        for mark in &mut marks {
            *mark = counts.next()?;
        }
        Some(Self { database: *database, count, marks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_reads_back() {
        let mut chain = Chain::new([7; 16]);
        chain.count = 9;
        chain.marks[3] = 8;
        assert_eq!(Chain::from_bytes(&chain.to_bytes()), Some(chain));
        assert_eq!(Chain::from_bytes(&chain.to_bytes()[1..]), None);
    }

    #[test]
    fn a_bucket_is_no_prefix_of_another() {
        let number = Number(5);
        let short = number.bucket("a").key;
        assert!(!number.value("ab", "c").key.starts_with(&short));
        assert!(number.value("a", "bc").key.starts_with(&short));
    }
}
