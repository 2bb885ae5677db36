//! Stored state: of records and journals that a disk has damaged, nothing is taken for other contents.
//!
//! The formats are private to the runtime, so their files are compiled into this crate: what is fuzzed then
//! needs neither a door in the product nor wasmtime.

use std::fmt::Debug;

use hvm_types::Sequence;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use self::acknowledged::Count;
use self::codec::{seal, unseal};
use self::journal::{Expected, Walk};
use self::layout::{AnswerEntry, Chain, Head, OrderEntry};

pub(crate) use self::answer::{Exchange, Idempotency, IdempotencyKey, IdempotencyWindow, StoredResponse};
pub(crate) use self::error::{CommitError, ReadError};
pub(crate) use self::history::Retention;
pub(crate) use self::record::{MAX_BUCKET_BYTES, MAX_KEY_BYTES, MAX_RECORD_BYTES, WriteSet};
pub(crate) use self::scan::{ScanHead, WindowAnswer};

#[allow(dead_code, unreachable_pub, reason = "the runtime uses the rest, and exports it")]
#[path = "../../../runtime/src/state/answer.rs"]
mod answer;
#[allow(dead_code, unreachable_pub, reason = "the runtime uses the rest, and exports it")]
#[path = "../../../runtime/src/state/error.rs"]
mod error;
#[allow(dead_code, unreachable_pub, reason = "the runtime uses the rest, and exports it")]
#[path = "../../../runtime/src/state/history.rs"]
mod history;
#[allow(dead_code, unreachable_pub, reason = "the runtime uses the rest, and exports it")]
#[path = "../../../runtime/src/state/record.rs"]
mod record;
#[allow(dead_code, unreachable_pub, reason = "the runtime uses the rest, and exports it")]
#[path = "../../../runtime/src/state/scan.rs"]
mod scan;

#[allow(dead_code, reason = "the runtime uses the rest")]
#[path = "../../../runtime/src/state/local/acknowledged.rs"]
mod acknowledged;
#[allow(dead_code, reason = "the runtime uses the rest")]
#[path = "../../../runtime/src/state/local/codec.rs"]
mod codec;
#[allow(dead_code, reason = "the runtime uses the rest")]
#[path = "../../../runtime/src/state/local/journal.rs"]
mod journal;
#[allow(dead_code, reason = "the runtime uses the rest")]
#[path = "../../../runtime/src/state/local/layout.rs"]
mod layout;

/// The database of the journals made here.
const DATABASE: [u8; 16] = [7; 16];

/// Whatever reads as a record is written and read again without a change, and no damage to one is taken for
/// other contents.
///
/// # Panics
/// Where that does not hold.
pub(crate) fn check_records(input: &[u8]) {
    let mut sealed = input.to_vec();
    sealed.extend_from_slice(&xxh3_64(input).to_le_bytes());
    reads_back::<Head>(&sealed);
    reads_back::<OrderEntry>(&sealed);
    reads_back::<AnswerEntry>(&sealed);
    if let Some(chain) = Chain::from_bytes(input) {
        assert_eq!(chain.to_bytes(), input, "a chain changed by being read");
    }
    if let Some(count) = Count::from_bytes(&sealed) {
        assert_eq!(count.to_bytes(), *sealed, "a count changed by being read");
    }
    answers_survive_no_damage(Input(input));
}

fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(record: &[u8]) {
    let Ok((fields, tail)) = unseal::<T>(record) else { return };
    let again = seal(&fields, tail);
    let (fields_again, tail_again) = unseal::<T>(&again).expect("what was sealed reads back");
    assert_eq!((&fields_again, tail_again), (&fields, tail), "a record changed by being written");
}

fn answers_survive_no_damage(mut input: Input<'_>) {
    let mut headers = Vec::new();
    for _ in 0..input.byte() % 4 {
        headers.push((String::from_utf8_lossy(input.some()).into_owned(), input.some().to_vec()));
    }
    let entry = AnswerEntry {
        sequence: Sequence(input.number()),
        request: [input.byte(); 32],
        status: u16::from(input.byte()),
        headers,
    };
    let tail = input.some().to_vec();
    let sealed = seal(&entry, &tail);
    let damaged = input.damage(&sealed);
    match unseal::<AnswerEntry>(&damaged) {
        Ok((found, found_tail)) => assert_eq!((found, found_tail), (entry, tail.as_slice())),
        Err(error) => assert_ne!(damaged, sealed, "an undamaged record was refused: {error}"),
    }
}

/// Of a damaged journal, whole batches in their order are taken or none, and no readable batch is given up.
///
/// # Panics
/// Where that does not hold.
pub(crate) fn check_journal(input: &[u8]) {
    drop(read_newest(input, 0));
    let mut input = Input(input);
    let mut chain = Chain::new(DATABASE);
    let mut seqno = 0;
    let mut batches = Vec::new();
    for _ in 0..1 + input.byte() % 6 {
        chain.count += 1;
        seqno += 1 + u64::from(input.byte() % 4);
        let items = [input.some(), input.some()];
        batches.push(batch(chain, seqno, &items));
    }
    let whole = batches.concat();
    let damaged = input.damage(&whole);
    let acknowledged = chain.count - u64::from(input.byte() % 2);
    match read_newest(&damaged, acknowledged) {
        Ok((end, count)) => {
            is_a_run_of(&damaged[..end], &batches, count);
            for later in &batches[usize::try_from(count).expect("a small count")..] {
                let lost = damaged[end..].windows(later.len()).any(|window| window == later);
                assert!(!lost, "a readable batch after batch {count} was given up");
            }
        }
        Err(what) => assert_ne!(damaged, whole, "an undamaged journal was refused: {what}"),
    }
}

/// Where the batches of a journal end, and the number of the last.
fn read_newest(bytes: &[u8], acknowledged: u64) -> Result<(usize, u64), String> {
    let expected = Expected { database: Some(DATABASE), acknowledged, cut: false };
    let mut walk = Walk { expected, ..Walk::default() };
    let end = walk.journal(bytes, true).map_err(|(_, what)| what)?;
    Ok((end, walk.chain.map_or(0, |chain| chain.count)))
}

/// A batch as fjall writes it: the items' keys and values are the same bytes.
fn batch(chain: Chain, seqno: u64, items: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut item = |key: &[u8], value: &[u8]| {
        let length = |bytes: usize| u32::try_from(bytes).expect("the input is small").to_le_bytes();
        body.extend_from_slice(&[2, 0, 0]);
        body.extend_from_slice(&[0; 8]);
        body.extend_from_slice(&length(key.len())[..2]);
        body.extend_from_slice(&[length(value.len()), length(value.len())].concat());
        body.extend_from_slice(&[key, value].concat());
    };
    items.iter().for_each(|bytes| item(bytes, bytes));
    item(&layout::chain().key, &chain.to_bytes());
    let mut batch = vec![1];
    batch.extend_from_slice(&u32::try_from(items.len() + 1).expect("few items").to_le_bytes());
    batch.extend_from_slice(&seqno.to_le_bytes());
    batch.extend_from_slice(&body);
    batch.push(3);
    batch.extend_from_slice(&xxh3_64(&body).to_le_bytes());
    batch.extend_from_slice(b"FJL\x03");
    batch
}

/// The bytes are the batches up to `count`, from any of them on. A batch's sequence number is not covered by
/// its checksum, so one that still grows passes.
fn is_a_run_of(bytes: &[u8], batches: &[Vec<u8>], count: u64) {
    let without_seqno = |batch: &[u8]| [&batch[..5], &batch[13..]].concat();
    let mut rest = bytes;
    let mut ended = usize::try_from(count).expect("a small count");
    while let Some(before) = ended.checked_sub(1)
        && let Some(at) = rest.len().checked_sub(batches[before].len())
    {
        assert_eq!(without_seqno(&rest[at..]), without_seqno(&batches[before]), "batch {ended} is another");
        rest = &rest[..at];
        ended = before;
    }
    assert!(rest.is_empty(), "{} bytes of the journal are no batch", rest.len());
}

/// The fuzzer's bytes, taken piece by piece; zeros when they are used up.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    pub(crate) fn number(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    /// Some bytes, up to 255.
    pub(crate) fn some(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn position(&mut self, length: usize) -> usize {
        let position = usize::from(self.byte()) << 8 | usize::from(self.byte());
        position % (length + 1)
    }

    /// A copy with up to three changes, of the kinds that disks and crashes make.
    pub(crate) fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..self.byte() % 4 {
            let (a, b) = (self.position(bytes.len()), self.position(bytes.len()));
            let range = a.min(b)..a.max(b);
            match self.byte() % 6 {
                0 => bytes.iter_mut().skip(a).take(1).for_each(|byte| *byte ^= 1 << (b % 8)),
                1 => bytes.truncate(a),
                2 => bytes[range].fill(0),
                3 => drop(bytes.drain(range)),
                4 => drop(bytes.splice(a..a, self.some().iter().copied())),
                _ => {
                    let copy = bytes[range].to_vec();
                    let at = self.position(bytes.len());
                    drop(bytes.splice(at..at, copy));
                }
            }
        }
        bytes
    }
}
