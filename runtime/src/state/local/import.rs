//! Importing a partition: its keys are written under a number of their own, and the last batch gives that
//! number the partition's name.
//!
//! Until then the number is noted as one whose keys are to be purged, so that a start after a crash removes
//! what is half there. The partition that is replaced is removed in the same batch.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;
use hvm_types::{ByteSize, Epoch, ReplicaId, Sequence};

use super::codec::seal;
use super::layout::{self, Head, Number, OrderEntry, Past, Place};
use super::shared::{Job, Shared};
use super::stage::{Newest, Stage, answer_entry};
use crate::state::{
    CommitError, Import, ImportError, ImportHead, MAX_BUCKET_BYTES, MAX_KEY_BYTES, PartitionInfo,
    WindowAnswer,
};

/// What is gathered before it is written, in bytes.
const GATHERED_BYTES: usize = 1 << 20;
/// What an entry takes in memory beside its bytes, about.
const ENTRY_BYTES: usize = 128;

/// One step of an import, for the committer.
pub(in crate::state) struct ImportJob {
    id: ReplicaId,
    epoch: Epoch,
    replace: bool,
    step: ImportStep,
    reply: Reply,
}

/// The partition's head as the step leaves it.
type Reply = SyncSender<Result<Head, ImportError>>;

enum ImportStep {
    Begin,
    /// Entries come in order, so that none is there twice; of answers that is looked at.
    Write {
        number: Number,
        writes: Vec<(Place, Vec<u8>)>,
        has_answers: bool,
    },
    Finish {
        head: Box<Head>,
    },
    /// Nobody waits for the reply.
    Abandon {
        number: Number,
    },
}

/// What is to be done when the step is durable.
pub(super) struct ImportTicket {
    id: ReplicaId,
    pub(super) outcome: ImportOutcome,
    head: Box<Head>,
    reply: Reply,
}

pub(super) enum ImportOutcome {
    /// Nothing more.
    GoesOn,
    /// This number is to be purged, if there is one; its handles are removed.
    Ended(Option<Number>),
}

impl ImportJob {
    pub(in crate::state) fn refuse(self, refusal: &CommitError) {
        drop(self.reply.send(Err(ImportError::of_commit(&self.id, refusal))));
    }
}

impl ImportTicket {
    pub(super) fn accept(self) {
        drop(self.reply.send(Ok(*self.head)));
    }

    pub(super) fn deny(self, refusal: &CommitError) {
        drop(self.reply.send(Err(ImportError::of_commit(&self.id, refusal))));
    }
}

/// A partition in the making.
pub(super) struct LocalImport {
    shared: Arc<Shared>,
    id: ReplicaId,
    epoch: Epoch,
    replace: bool,
    head: Head,
    gathered: Vec<(Place, Vec<u8>)>,
    gathered_bytes: usize,
    /// Bucket and key of the last entry.
    last: Option<(String, String)>,
    ended: bool,
}

impl LocalImport {
    /// Begins: takes a number.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        id: &ReplicaId,
        epoch: Epoch,
        replace: bool,
    ) -> Result<Self, ImportError> {
        let head = Head::empty(Number(0), epoch);
        let mut this = Self {
            shared: Arc::clone(shared),
            id: id.clone(),
            epoch,
            replace,
            head,
            gathered: Vec::new(),
            gathered_bytes: 0,
            last: None,
            ended: true,
        };
        this.head = this.ask(ImportStep::Begin)?;
        this.ended = false;
        Ok(this)
    }

    fn ask(&self, step: ImportStep) -> Result<Head, ImportError> {
        let (reply, answer) = sync_channel(1);
        let stopped = || ImportError::of_commit(&self.id, &CommitError::stopped());
        if !self.shared.send(self.job(step, reply)) {
            return Err(stopped());
        }
        answer.recv().unwrap_or_else(|_| Err(stopped()))
    }

    fn job(&self, step: ImportStep, reply: Reply) -> Job {
        let (id, epoch, replace) = (self.id.clone(), self.epoch, self.replace);
        Job::Import(Box::new(ImportJob { id, epoch, replace, step, reply }))
    }

    fn gather(&mut self, place: Place, value: Vec<u8>) -> Result<(), ImportError> {
        self.gathered_bytes += place.key.len() + value.len() + ENTRY_BYTES;
        self.gathered.push((place, value));
        if self.gathered_bytes >= GATHERED_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), ImportError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.gathered_bytes = 0;
        let writes = std::mem::take(&mut self.gathered);
        let has_answers = self.head.answers.next > 0;
        self.ask(ImportStep::Write { number: self.head.number, writes, has_answers }).map(drop)
    }

    fn invalid(&self, what: impl Into<String>) -> ImportError {
        ImportError::Invalid { id: self.id.clone(), what: what.into() }
    }
}

impl Import for LocalImport {
    fn put(&mut self, bucket: &str, entries: Vec<(String, Bytes)>) -> Result<(), ImportError> {
        if bucket.len() > MAX_BUCKET_BYTES {
            return Err(self.invalid(format!("the name of a bucket has {} bytes", bucket.len())));
        }
        for (key, value) in entries {
            if key.len() > MAX_KEY_BYTES {
                return Err(self.invalid(format!("a key has {} bytes", key.len())));
            }
            if self.last.as_ref().is_some_and(|(b, k)| (b.as_str(), k) >= (bucket, &key)) {
                return Err(self.invalid("its keys are not in order"));
            }
            self.last = Some((bucket.to_owned(), key.clone()));
            self.head.stored += (key.len() + value.len()) as u64;
            self.gather(self.head.number.value(bucket, &key), value.to_vec())?;
        }
        Ok(())
    }

    fn put_answers(&mut self, answers: Vec<WindowAnswer>) -> Result<(), ImportError> {
        for WindowAnswer { idempotency, sequence, unix_millis } in answers {
            let (number, window) = (self.head.number, &mut self.head.answers);
            if window.first == window.next {
                window.oldest_millis = unix_millis;
            }
            let ordinal = window.next;
            window.next += 1;
            window.bytes += idempotency.bytes();
            let entry = answer_entry(&idempotency, sequence);
            let key = idempotency.key.as_str();
            let order = OrderEntry { key: key.to_owned(), bytes: idempotency.bytes(), unix_millis };
            self.gather(number.order(ordinal), seal(&order, &[]))?;
            self.gather(number.answer(key), seal(&entry, &idempotency.response.body))?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, head: &ImportHead) -> Result<PartitionInfo, ImportError> {
        let ImportHead { sequence, unix_millis, schema, ref meter } = *head;
        if let Some(schema) = schema {
            self.gather(self.head.number.schema(), seal(&schema, &[]))?;
        }
        self.write()?;
        let head = Head { sequence, unix_millis, meter: meter.clone(), ..self.head.clone() };
        let head = self.ask(ImportStep::Finish { head: Box::new(head) })?;
        self.ended = true;
        Ok(PartitionInfo {
            id: self.id.clone(),
            epoch: head.epoch,
            sequence: head.sequence,
            stored: ByteSize(head.stored),
            answers: head.answers.next - head.answers.first,
            meter: head.meter,
            owner: None,
        })
    }
}

impl Drop for LocalImport {
    fn drop(&mut self) {
        if !self.ended {
            let (reply, _) = sync_channel(1);
            // Where the engine has stopped, the next start purges.
            self.shared.send(self.job(ImportStep::Abandon { number: self.head.number }, reply));
        }
    }
}

impl Stage<'_> {
    /// Adds a step of an import. What is refused is answered at once.
    pub(super) fn import(&mut self, job: ImportJob, next: &mut u64) -> Option<ImportTicket> {
        let ImportJob { id, epoch, replace, step, reply } = job;
        let staged = match step {
            ImportStep::Begin => self
                .replaced(&id, epoch, replace)
                .map(|_| (self.begin_import(epoch, next), ImportOutcome::GoesOn)),
            ImportStep::Write { number, writes, has_answers } => self
                .write_import(&id, writes, has_answers)
                .map(|()| (Head::empty(number, epoch), ImportOutcome::GoesOn)),
            ImportStep::Finish { head } => self.finish_import(&id, replace, *head),
            ImportStep::Abandon { number } => {
                Ok((Head::empty(number, epoch), ImportOutcome::Ended(Some(number))))
            }
        };
        match staged {
            Ok((head, outcome)) => Some(ImportTicket { id, outcome, head: Box::new(head), reply }),
            Err(error) => {
                drop(reply.send(Err(error)));
                None
            }
        }
    }

    /// The head of what the import takes the place of, where that may be.
    fn replaced(&self, id: &ReplicaId, epoch: Epoch, replace: bool) -> Result<Option<Head>, ImportError> {
        let unreadable = |error| ImportError::of_read(id, error);
        let Some(number) = self.number(id).map_err(unreadable)? else { return Ok(None) };
        let lost = || ImportError::Corrupt { id: id.clone(), what: "its head is missing".to_owned() };
        let Newest { head, .. } = self.newest(number).map_err(unreadable)?.ok_or_else(lost)?;
        if head.epoch > epoch {
            return Err(ImportError::Fenced { id: id.clone(), epoch, newest: head.epoch });
        }
        if head.sequence > Sequence(0) && !replace {
            return Err(ImportError::HasRecords { id: id.clone(), sequence: head.sequence });
        }
        Ok(Some(head))
    }

    fn begin_import(&mut self, epoch: Epoch, next: &mut u64) -> Head {
        let number = Number(*next);
        *next += 1;
        self.batch.writes.insert(layout::next_number(), Some(seal(&Number(*next), &[])));
        self.batch.writes.insert(number.purge(), Some(Vec::new()));
        Head::empty(number, epoch)
    }

    fn write_import(
        &mut self,
        id: &ReplicaId,
        writes: Vec<(Place, Vec<u8>)>,
        has_answers: bool,
    ) -> Result<(), ImportError> {
        for (place, value) in writes {
            if has_answers && self.size(&place).map_err(|error| ImportError::of_read(id, error))?.is_some() {
                // What was written of it is purged.
                let what = "an answer is there twice".to_owned();
                return Err(ImportError::Invalid { id: id.clone(), what });
            }
            self.batch.writes.insert(place, Some(value));
        }
        Ok(())
    }

    fn finish_import(
        &mut self,
        id: &ReplicaId,
        replace: bool,
        head: Head,
    ) -> Result<(Head, ImportOutcome), ImportError> {
        let old = self.replaced(id, head.epoch, replace)?;
        let sequence = match &old {
            // The replacement counts as a record where the numbers would go back otherwise.
            Some(old) if old.sequence >= head.sequence && old.sequence > Sequence(0) => old.sequence.next(),
            _ => head.sequence,
        };
        let head = Head { sequence, ..head };
        self.batch.writes.insert(layout::name(id), Some(seal(&head.number, &[])));
        self.batch.writes.insert(head.number.head(), Some(seal(&head, &[])));
        self.batch.writes.insert(head.number.purge(), None);
        let past = Past::none(head.number);
        self.batch.newest.insert(head.number, Some(Newest { head: head.clone(), past }));
        let old = old.map(|old| old.number);
        if let Some(old) = old {
            self.batch.writes.insert(old.head(), None);
            self.batch.writes.insert(old.past(), None);
            self.batch.writes.insert(old.purge(), Some(Vec::new()));
            self.batch.newest.insert(old, None);
        }
        Ok((head, ImportOutcome::Ended(old)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::state::StateEngine;
    use crate::state::local::{LocalConfig, LocalEngine};

    const KEYS: usize = 30_000;

    fn begun(engine: &LocalEngine) -> Box<dyn Import> {
        let id = "ledger/accounts/0".parse().expect("a valid id");
        let mut import = engine.import(&id, Epoch(1), false).expect("it begins");
        let entries = (0..KEYS).map(|key| (format!("{key:06}"), Bytes::from_static(&[b'v'; 100])));
        import.put("default", entries.collect()).expect("it is taken");
        import
    }

    /// Keys of the first partition of the database, and notes of what is to be purged.
    fn keys_left(engine: &LocalEngine) -> usize {
        let view = engine.view().expect("a view");
        view.keys(&Number(1).everything(), None).count() + view.keys(&layout::purges(), None).count()
    }

    fn wait_until_purged(engine: &LocalEngine) {
        let started = Instant::now();
        while keys_left(engine) > 0 {
            assert!(started.elapsed() < Duration::from_secs(60), "{} keys are left", keys_left(engine));
            std::thread::yield_now();
        }
        assert_eq!(engine.partitions(), Ok(Vec::new()));
    }

    #[test]
    fn what_an_abandoned_import_wrote_is_purged() {
        let directory = tempfile::tempdir().expect("a directory");
        let engine = LocalEngine::start(LocalConfig::new(directory.path())).expect("the engine starts");
        let import = begun(&engine);
        assert!(keys_left(&engine) > KEYS / 2, "nothing was written yet");
        drop(import);
        wait_until_purged(&engine);
    }

    #[test]
    fn what_a_crash_left_of_an_import_is_purged_at_the_next_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let engine = LocalEngine::start(LocalConfig::new(directory.path())).expect("the engine starts");
        // As after a crash, nobody abandons it.
        std::mem::forget(begun(&engine));
        drop(engine);
        let engine = LocalEngine::start(LocalConfig::new(directory.path())).expect("the engine starts");
        wait_until_purged(&engine);
    }

    #[test]
    fn keys_out_of_order_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let engine = LocalEngine::start(LocalConfig::new(directory.path())).expect("the engine starts");
        for (bucket, key) in [("default", "000000"), ("default", "000001"), ("a", "b")] {
            let mut import = begun(&engine);
            let refused = import.put(bucket, vec![(key.to_owned(), Bytes::new())]);
            assert!(matches!(refused, Err(ImportError::Invalid { .. })), "{refused:?}");
        }
    }
}
