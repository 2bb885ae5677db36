//! What leaves the two windows of a partition, of answers and of kept records, when a record is added.
//!
//! One record removes a bounded number of each, so a narrowed window takes effect over many records.

use std::ops::Range;

use super::codec::unseal;
use super::kept;
use super::layout::{Answers, Head, Number, OrderEntry, Past};
use super::stage::{Stage, corrupt};
use crate::state::{CommitError, HistoryWindow, Idempotency, IdempotencyWindow};

/// Most answers, and most kept records, that one record removes.
const EVICTED_PER_RECORD: u64 = 16;

/// A record that is to be kept.
pub(super) struct Kept {
    pub(super) window: HistoryWindow,
    /// As it is stored.
    pub(super) bytes: Vec<u8>,
}

impl Stage<'_> {
    /// The answers that have to leave so that this record's own finds room, and the window without them.
    pub(super) fn plan_eviction(
        &self,
        head: &Head,
        window: &IdempotencyWindow,
        added: Option<&Idempotency>,
    ) -> Result<(Vec<String>, Answers), CommitError> {
        let age = u64::try_from(window.age.as_millis()).unwrap_or(u64::MAX);
        let (added_count, added_bytes) = (u64::from(added.is_some()), added.map_or(0, Idempotency::bytes));
        let over = |answers: &Answers| {
            answers.next - answers.first + added_count > window.answers
                || answers.bytes + added_bytes > window.bytes.0
                || head.unix_millis.saturating_sub(answers.oldest_millis) > age
        };
        let mut answers = head.answers.clone();
        let mut keys = Vec::new();
        while (keys.len() as u64) < EVICTED_PER_RECORD && answers.first < answers.next && over(&answers) {
            let entry = self.order_entry(head.number, answers.first)?;
            answers.first += 1;
            answers.bytes = answers.bytes.saturating_sub(entry.bytes);
            if answers.first < answers.next {
                answers.oldest_millis = self.order_entry(head.number, answers.first)?.unix_millis;
            }
            keys.push(entry.key);
        }
        Ok((keys, answers))
    }

    fn order_entry(&self, number: Number, ordinal: u64) -> Result<OrderEntry, CommitError> {
        let bytes = self.get(&number.order(ordinal))?;
        let lost = || CommitError::Corrupt { what: format!("answer {ordinal} of its window is missing") };
        Ok(unseal(&bytes.ok_or_else(lost)?).map_err(corrupt)?.0)
    }

    /// The kept records after the one that `head` is of, and those whose bytes are to be deleted.
    pub(super) fn plan_past(
        &self,
        head: &Head,
        past: &Past,
        kept: Option<&Kept>,
    ) -> Result<(Past, Range<u64>), CommitError> {
        let mut after = past.clone();
        let sequence = head.sequence.0;
        match kept {
            // Nothing is kept any more: all that was is in the way of a history without gaps.
            None => (after.first, after.bytes) = (after.next, 0),
            Some(Kept { window, bytes }) => {
                if after.next != sequence {
                    // The records before this one were not kept.
                    if after.swept == after.next {
                        after.swept = sequence;
                    }
                    (after.first, after.next, after.bytes) = (sequence, sequence, 0);
                }
                self.evict_records(&mut after, window, bytes.len() as u64, head.unix_millis)?;
                if after.first == after.next {
                    (after.oldest_bytes, after.oldest_millis) = (bytes.len() as u64, head.unix_millis);
                }
                after.next += 1;
                after.bytes += bytes.len() as u64;
            }
        }
        let deleted = after.swept..after.first.min(after.swept + EVICTED_PER_RECORD);
        after.swept = deleted.end;
        Ok((after, deleted))
    }

    fn evict_records(
        &self,
        past: &mut Past,
        window: &HistoryWindow,
        added_bytes: u64,
        now: u64,
    ) -> Result<(), CommitError> {
        let age = u64::try_from(window.age.as_millis()).unwrap_or(u64::MAX);
        let over = |past: &Past| {
            past.next - past.first + 1 > window.records
                || past.bytes + added_bytes > window.bytes.0
                || now.saturating_sub(past.oldest_millis) > age
        };
        for _ in 0..EVICTED_PER_RECORD {
            if past.first == past.next || !over(past) {
                break;
            }
            past.bytes = past.bytes.saturating_sub(past.oldest_bytes);
            past.first += 1;
            if past.first < past.next {
                let oldest = self.get(&past.number.record(past.first))?;
                let oldest = oldest.ok_or_else(|| kept::lost(past.first))?;
                past.oldest_bytes = oldest.len() as u64;
                past.oldest_millis = kept::unix_millis(&oldest)?;
            }
        }
        Ok(())
    }
}
