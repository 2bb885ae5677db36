//! A batch in the making: records are checked against what is committed and what stands before them in the
//! batch, and either add all their writes or none.

use std::collections::HashMap;

use fjall::Slice;
use hvm_types::{Epoch, ReplicaId, Sequence};

use super::codec::{Damage, seal, unseal};
use super::layout::{self, AnswerEntry, Answers, Head, Number, OrderEntry};
use super::layout::{BUCKETS, Chain, Place};
use super::store::{View, Writes};
use crate::state::{CommitError, CommitRecord, Idempotency, IdempotencyWindow, OpenError, ReadError};

/// Most answers that one record removes from the window.
const EVICTED_PER_RECORD: usize = 16;

/// The batch in the making.
pub(super) struct Stage<'a> {
    view: &'a View,
    window: IdempotencyWindow,
    pub(super) writes: Writes,
    /// Heads as this batch leaves them; `None` is removed.
    pub(super) heads: HashMap<Number, Option<Head>>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(view: &'a View, window: IdempotencyWindow) -> Self {
        Self { view, window, writes: Writes::new(), heads: HashMap::new() }
    }

    /// Bytes that the batch adds to the journal, about.
    pub(super) fn bytes(&self) -> u64 {
        const ITEM_BYTES: usize = 32;
        let bytes: usize = self
            .writes
            .iter()
            .map(|(place, value)| ITEM_BYTES + place.key.len() + value.as_ref().map_or(0, Vec::len))
            .sum();
        bytes as u64
    }

    fn get(&self, place: &Place) -> Result<Option<Slice>, ReadError> {
        match self.writes.get(place) {
            Some(value) => Ok(value.as_deref().map(Slice::from)),
            None => self.view.get(place),
        }
    }

    pub(super) fn size(&self, place: &Place) -> Result<Option<u64>, ReadError> {
        match self.writes.get(place) {
            Some(value) => Ok(value.as_ref().map(|value| value.len() as u64)),
            None => self.view.size(place),
        }
    }

    /// The head of a partition as it is at this point of the batch.
    pub(super) fn head(&self, number: Number) -> Result<Option<Head>, ReadError> {
        match self.heads.get(&number) {
            Some(head) => Ok(head.clone()),
            None => read_head(self.view, number),
        }
    }

    /// The number of a partition that exists at this point of the batch.
    pub(super) fn number(&self, id: &ReplicaId) -> Result<Option<Number>, ReadError> {
        self.get(&layout::name(id))?.map(|bytes| Ok(unseal(&bytes).map_err(corrupt)?.0)).transpose()
    }

    fn set_head(&mut self, head: Head) {
        self.writes.insert(head.number.head(), Some(seal(&head, &[])));
        self.heads.insert(head.number, Some(head));
    }

    /// Adds an opening: the head with the epoch. Where it is open with this epoch already, nothing is written.
    pub(super) fn open(&mut self, id: &ReplicaId, epoch: Epoch, next: &mut u64) -> Result<Head, OpenError> {
        let failed = |error| match error {
            ReadError::Corrupt { what } => OpenError::Corrupt { id: id.clone(), what },
            error => OpenError::Unavailable { id: id.clone(), reason: error.to_string() },
        };
        let head = match self.number(id).map_err(failed)? {
            Some(number) => {
                let lost = || OpenError::Corrupt { id: id.clone(), what: "its head is missing".to_owned() };
                let head = self.head(number).map_err(failed)?.ok_or_else(lost)?;
                if head.epoch > epoch {
                    return Err(OpenError::Fenced { id: id.clone(), epoch, newest: head.epoch });
                }
                if head.epoch == epoch {
                    return Ok(head);
                }
                Head { epoch, ..head }
            }
            None => {
                let number = Number(*next);
                *next += 1;
                self.writes.insert(layout::name(id), Some(seal(&number, &[])));
                self.writes.insert(layout::next_number(), Some(seal(&Number(*next), &[])));
                Head {
                    number,
                    epoch,
                    sequence: Sequence(0),
                    stored: 0,
                    request: None,
                    unix_millis: 0,
                    meter: hvm_types::Meter::default(),
                    answers: Answers::default(),
                }
            }
        };
        self.set_head(head.clone());
        Ok(head)
    }

    /// Adds a removal. The partition's keys are purged later.
    pub(super) fn remove(&mut self, id: &ReplicaId) -> Result<Option<Number>, ReadError> {
        let Some(number) = self.number(id)? else { return Ok(None) };
        self.writes.insert(layout::name(id), None);
        self.writes.insert(number.head(), None);
        self.writes.insert(number.purge(), Some(Vec::new()));
        self.heads.insert(number, None);
        Ok(Some(number))
    }

    /// Adds a record and returns its sequence.
    pub(super) fn commit(
        &mut self,
        number: Number,
        epoch: Epoch,
        record: CommitRecord,
    ) -> Result<Sequence, CommitError> {
        let head = self.head(number)?.ok_or(CommitError::Removed)?;
        if head.epoch != epoch {
            return Err(CommitError::Fenced { newest: head.epoch });
        }
        if let Some(idempotency) = &record.idempotency
            && self.size(&number.answer(idempotency.key.as_str()))?.is_some()
        {
            return Err(CommitError::AlreadyApplied);
        }
        let stored = self.stored_after(&head, &record)?;
        let CommitRecord { writes, idempotency, meter, unix_millis, .. } = record;
        let mut head = Head { sequence: head.sequence.next(), stored, unix_millis, request: None, ..head };
        head.meter += &meter;
        let (evicted, answers) = self.plan_eviction(&head, idempotency.as_ref(), unix_millis)?;

        // From here nothing can fail: the record is in the batch as a whole.
        for (bucket, key, value) in writes.iter() {
            self.writes.insert(number.value(bucket, key), value.map(|value| value.to_vec()));
        }
        self.evict(&mut head, &evicted, answers);
        if let Some(idempotency) = idempotency {
            head.request = Some(*idempotency.request.as_bytes());
            self.add_answer(&mut head, &idempotency, unix_millis);
        }
        let sequence = head.sequence;
        self.set_head(head);
        Ok(sequence)
    }

    fn stored_after(&self, head: &Head, record: &CommitRecord) -> Result<u64, CommitError> {
        let mut stored = head.stored;
        for (bucket, key, value) in record.writes.iter() {
            let entry = |value: u64| key.len() as u64 + value;
            let before = self.size(&head.number.value(bucket, key))?.map_or(0, entry);
            let lost = || CommitError::Corrupt { what: "it holds more than it counted".to_owned() };
            stored = (stored + value.map_or(0, |value| entry(value.len() as u64)))
                .checked_sub(before)
                .ok_or_else(lost)?;
        }
        if stored > record.quota.0 && stored > head.stored {
            let stored = hvm_types::ByteSize(stored);
            return Err(CommitError::QuotaExceeded { stored, limit: record.quota });
        }
        Ok(stored)
    }

    fn add_answer(&mut self, head: &mut Head, idempotency: &Idempotency, unix_millis: u64) {
        let Idempotency { key, response, .. } = idempotency;
        let entry = answer_entry(idempotency, head.sequence);
        let bytes = idempotency.bytes();
        let order = OrderEntry { key: key.as_str().to_owned(), bytes, unix_millis };
        self.writes.insert(head.number.answer(key.as_str()), Some(seal(&entry, &response.body)));
        self.writes.insert(head.number.order(head.answers.next), Some(seal(&order, &[])));
        if head.answers.first == head.answers.next {
            head.answers.oldest_millis = unix_millis;
        }
        head.answers.next += 1;
        head.answers.bytes += bytes;
    }

    /// The answers that have to leave so that this record's own finds room, and the window without them.
    fn plan_eviction(
        &self,
        head: &Head,
        added: Option<&Idempotency>,
        now: u64,
    ) -> Result<(Vec<String>, Answers), CommitError> {
        let age = u64::try_from(self.window.age.as_millis()).unwrap_or(u64::MAX);
        let (added_count, added_bytes) = (u64::from(added.is_some()), added.map_or(0, Idempotency::bytes));
        let over = |answers: &Answers| {
            answers.next - answers.first + added_count > self.window.answers
                || answers.bytes + added_bytes > self.window.bytes.0
                || now.saturating_sub(answers.oldest_millis) > age
        };
        let mut answers = head.answers.clone();
        let mut keys = Vec::new();
        while keys.len() < EVICTED_PER_RECORD && answers.first < answers.next && over(&answers) {
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

    fn evict(&mut self, head: &mut Head, keys: &[String], answers: Answers) {
        for (ordinal, key) in (head.answers.first..answers.first).zip(keys) {
            self.writes.insert(head.number.answer(key), None);
            self.writes.insert(head.number.order(ordinal), None);
        }
        head.answers = answers;
    }

    /// Closes the batch with its link of the chain.
    pub(super) fn finish(mut self, chain: Chain) -> (Writes, HashMap<Number, Option<Head>>, Chain) {
        let mut chain = Chain { count: chain.count + 1, ..chain };
        let mut spaces: Vec<usize> = self.writes.keys().map(|place| place.space).collect();
        spaces.dedup();
        for space in spaces.into_iter().filter(|space| *space < BUCKETS) {
            chain.marks[space] = chain.count;
            self.writes.insert(layout::mark(space), Some(chain.count.to_le_bytes().to_vec()));
        }
        self.writes.insert(layout::chain(), Some(chain.to_bytes().to_vec()));
        (self.writes, self.heads, chain)
    }
}

/// What is stored of the answer of the record with this sequence, beside its body.
pub(super) fn answer_entry(idempotency: &Idempotency, sequence: Sequence) -> AnswerEntry {
    let Idempotency { request, response, .. } = idempotency;
    let headers = response.headers.iter().map(|(name, value)| (name.clone(), value.to_vec())).collect();
    AnswerEntry { sequence, request: *request.as_bytes(), status: response.status, headers }
}

/// The head of a partition, if it exists.
pub(super) fn read_head(view: &View, number: Number) -> Result<Option<Head>, ReadError> {
    let Some(bytes) = view.get(&number.head())? else { return Ok(None) };
    let (head, _): (Head, _) = unseal(&bytes).map_err(corrupt)?;
    if head.number == number {
        Ok(Some(head))
    } else {
        Err(ReadError::Corrupt { what: "a partition's head stands in another's place".to_owned() })
    }
}

/// What damaged records mean to the reader.
pub(super) fn corrupt(damage: Damage) -> ReadError {
    ReadError::Corrupt { what: damage.to_string() }
}
