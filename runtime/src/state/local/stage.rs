//! A batch in the making: records are checked against what is committed and what stands before them in the
//! batch, and either add all their writes or none.
//!
//! What leaves the two windows, of answers and of kept records, is planned in [`window`](super::window).

use fjall::Slice;
use hvm_types::{Epoch, ReplicaId, Sequence};

use super::batch::Batch;
use super::codec::{Damage, seal, unseal};
#[cfg(feature = "planted-faults")]
use super::faults::Faults;
use super::kept;
use super::layout::{self, AnswerEntry, Answers, Head, Number, OrderEntry, Past, Place};
use super::open::OpenPartitions;
use super::store::View;
use super::window::Kept;
use crate::state::{
    CommitError, CommitRecord, Idempotency, IdempotencyWindow, OpenError, ReadError, SchemaMark,
};

/// The batch in the making.
pub(super) struct Stage<'a> {
    view: &'a View,
    /// What is committed of those that are open, which is in the view too.
    open: &'a OpenPartitions,
    window: IdempotencyWindow,
    pub(super) batch: Batch,
    #[cfg(feature = "planted-faults")]
    pub(super) faults: Faults,
}

/// The newest of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) head: Head,
    pub(super) past: Past,
}

impl<'a> Stage<'a> {
    pub(super) fn new(view: &'a View, open: &'a OpenPartitions, window: IdempotencyWindow) -> Self {
        Self {
            view,
            open,
            window,
            batch: Batch::default(),
            #[cfg(feature = "planted-faults")]
            faults: Faults::default(),
        }
    }

    pub(super) fn get(&self, place: &Place) -> Result<Option<Slice>, ReadError> {
        match self.batch.writes.get(place) {
            Some(value) => Ok(value.as_deref().map(Slice::from)),
            None => self.view.get(place),
        }
    }

    pub(super) fn size(&self, place: &Place) -> Result<Option<u64>, ReadError> {
        match self.batch.writes.get(place) {
            Some(value) => Ok(value.as_ref().map(|value| value.len() as u64)),
            None => self.view.size(place),
        }
    }

    /// The newest of a partition as it is at this point of the batch.
    pub(super) fn newest(&self, number: Number) -> Result<Option<Newest>, ReadError> {
        if let Some(newest) = self.batch.newest.get(&number) {
            return Ok(newest.clone());
        }
        if let Some(newest) = self.open.newest(number) {
            debug_assert!(
                cfg!(feature = "planted-faults")
                    || read_newest(self.view, number).map_or(true, |stored| stored.as_ref() == Some(newest)),
                "what is known of a partition is not what is stored"
            );
            return Ok(Some(newest.clone()));
        }
        read_newest(self.view, number)
    }

    /// The number of a partition that exists at this point of the batch.
    pub(super) fn number(&self, id: &ReplicaId) -> Result<Option<Number>, ReadError> {
        self.get(&layout::name(id))?.map(|bytes| Ok(unseal(&bytes).map_err(corrupt)?.0)).transpose()
    }

    fn set_head(&mut self, head: Head, past: Past) {
        self.batch.writes.insert(head.number.head(), Some(seal(&head, &[])));
        self.batch.newest.insert(head.number, Some(Newest { head, past }));
    }

    /// Adds an opening: the head with the epoch. Where it is open with this epoch already, nothing is written.
    pub(super) fn open(&mut self, id: &ReplicaId, epoch: Epoch, next: &mut u64) -> Result<Newest, OpenError> {
        let failed = |error| match error {
            ReadError::Corrupt { what } => OpenError::Corrupt { id: id.clone(), what },
            error => OpenError::Unavailable { id: id.clone(), reason: error.to_string() },
        };
        let newest = match self.number(id).map_err(failed)? {
            Some(number) => {
                let lost = || OpenError::Corrupt { id: id.clone(), what: "its head is missing".to_owned() };
                let newest = self.newest(number).map_err(failed)?.ok_or_else(lost)?;
                if newest.head.epoch > epoch {
                    return Err(OpenError::Fenced { id: id.clone(), epoch, newest: newest.head.epoch });
                }
                if newest.head.epoch == epoch {
                    return Ok(newest);
                }
                let raised = Newest { head: Head { epoch, ..newest.head }, ..newest };
                #[cfg(feature = "planted-faults")]
                if self.faults.reuse_epoch {
                    return Ok(raised);
                }
                raised
            }
            None => {
                let number = Number(*next);
                *next += 1;
                self.batch.writes.insert(layout::name(id), Some(seal(&number, &[])));
                self.batch.writes.insert(layout::next_number(), Some(seal(&Number(*next), &[])));
                Newest { head: Head::empty(number, epoch), past: Past::none(number) }
            }
        };
        self.set_head(newest.head.clone(), newest.past.clone());
        Ok(newest)
    }

    /// Adds a removal. The partition's keys are purged later.
    pub(super) fn remove(&mut self, id: &ReplicaId) -> Result<Option<Number>, ReadError> {
        let Some(number) = self.number(id)? else { return Ok(None) };
        self.batch.writes.insert(layout::name(id), None);
        self.batch.writes.insert(number.head(), None);
        self.batch.writes.insert(number.past(), None);
        self.batch.writes.insert(number.purge(), Some(Vec::new()));
        self.batch.newest.insert(number, None);
        Ok(Some(number))
    }

    /// Adds a record and returns its sequence.
    pub(super) fn commit(
        &mut self,
        number: Number,
        epoch: Epoch,
        record: CommitRecord,
    ) -> Result<Sequence, CommitError> {
        let Newest { head, past } = self.newest(number)?.ok_or(CommitError::Removed)?;
        #[cfg(feature = "planted-faults")]
        let epoch = if self.faults.drop_fence { head.epoch } else { epoch };
        if head.epoch != epoch {
            return Err(CommitError::Fenced { newest: head.epoch });
        }
        let is_applied = match &record.idempotency {
            Some(idempotency) => self.size(&number.answer(idempotency.key.as_str()))?.is_some(),
            None => false,
        };
        #[cfg(feature = "planted-faults")]
        let is_applied = is_applied && !self.faults.forget_window;
        if is_applied {
            return Err(CommitError::AlreadyApplied);
        }
        let schema = self.schema_after(number, record.schema)?;
        let stored = self.stored_after(&head, &record)?;
        let sequence = head.sequence.next();
        let kept = record
            .retention
            .history
            .map(|window| Kept { window, bytes: kept::encode(&record, epoch, sequence) });
        let CommitRecord { writes, idempotency, meter, retention, unix_millis, .. } = record;
        let mut head = Head { sequence, stored, unix_millis, request: None, ..head };
        head.meter += &meter;
        let window = retention.idempotency.unwrap_or(self.window);
        let (evicted, answers) = self.plan_eviction(&head, &window, idempotency.as_ref())?;
        let (past_after, deleted) = self.plan_past(&head, &past, kept.as_ref())?;

        // From here nothing can fail: the record is in the batch as a whole.
        for (bucket, key, value) in writes.iter() {
            self.batch.writes.insert(number.value(bucket, key), value.map(|value| value.to_vec()));
        }
        if let Some(schema) = schema {
            self.batch.writes.insert(number.schema(), Some(seal(&schema, &[])));
        }
        self.evict(&mut head, &evicted, answers);
        if let Some(idempotency) = idempotency {
            head.request = Some(*idempotency.request.as_bytes());
            self.add_answer(&mut head, &idempotency, unix_millis);
        }
        for sequence in deleted {
            self.batch.writes.insert(number.record(sequence), None);
        }
        if let Some(kept) = kept {
            self.batch.writes.insert(number.record(sequence.0), Some(kept.bytes));
        }
        if past_after != past {
            self.batch.writes.insert(number.past(), Some(seal(&past_after, &[])));
        }
        self.set_head(head, past_after);
        Ok(sequence)
    }

    /// The layout that a record says, where it stays within its mark.
    fn schema_after(&self, number: Number, mark: Option<SchemaMark>) -> Result<Option<u32>, CommitError> {
        Ok(match mark {
            None => None,
            Some(SchemaMark::Is(version)) => Some(version),
            Some(SchemaMark::Migrated(version)) => match self.get(&number.schema())? {
                Some(bytes) if unseal::<u32>(&bytes).map_err(corrupt)?.0 == version => {
                    return Err(CommitError::AlreadyApplied);
                }
                _ => Some(version),
            },
        })
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
        self.batch.writes.insert(head.number.answer(key.as_str()), Some(seal(&entry, &response.body)));
        self.batch.writes.insert(head.number.order(head.answers.next), Some(seal(&order, &[])));
        if head.answers.first == head.answers.next {
            head.answers.oldest_millis = unix_millis;
        }
        head.answers.next += 1;
        head.answers.bytes += bytes;
    }

    fn evict(&mut self, head: &mut Head, keys: &[String], answers: Answers) {
        for (ordinal, key) in (head.answers.first..answers.first).zip(keys) {
            self.batch.writes.insert(head.number.answer(key), None);
            self.batch.writes.insert(head.number.order(ordinal), None);
        }
        head.answers = answers;
    }
}

/// The newest of a partition, if it exists.
pub(super) fn read_newest(view: &View, number: Number) -> Result<Option<Newest>, ReadError> {
    let Some(head) = read_head(view, number)? else { return Ok(None) };
    Ok(Some(Newest { head, past: read_past(view, number)? }))
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

/// The version of the layout of a partition's state, if a record said one.
pub(super) fn read_schema(view: &View, number: Number) -> Result<Option<u32>, ReadError> {
    let Some(bytes) = view.get(&number.schema())? else { return Ok(None) };
    Ok(Some(unseal(&bytes).map_err(corrupt)?.0))
}

/// Which records of a partition are kept.
pub(super) fn read_past(view: &View, number: Number) -> Result<Past, ReadError> {
    let Some(bytes) = view.get(&number.past())? else { return Ok(Past::none(number)) };
    let (past, _): (Past, _) = unseal(&bytes).map_err(corrupt)?;
    if past.number == number {
        Ok(past)
    } else {
        Err(ReadError::Corrupt { what: "a partition's past stands in another's place".to_owned() })
    }
}

/// What damaged records mean to the reader.
pub(super) fn corrupt(damage: Damage) -> ReadError {
    ReadError::Corrupt { what: damage.to_string() }
}
