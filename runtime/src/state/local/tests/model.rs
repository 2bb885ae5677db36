//! What a partition must be: the same rules as the engine's, without a disk.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hvm_types::{ByteSize, Digest, Epoch, Meter, Sequence};

use crate::state::{
    CommitRecord, HistoryWindow, Idempotency, IdempotencyWindow, PartitionState, ReadError, Retention,
    StoredResponse, WriteSet,
};

/// Answers that a partition keeps, how long, and the records that it keeps: few, so that they leave.
pub(super) const ANSWERS: usize = 4;
const AGE: Duration = Duration::from_secs(20);
const RECORDS: usize = 3;
const BUCKET: &str = "accounts";

pub(super) const WINDOW: IdempotencyWindow =
    IdempotencyWindow { answers: ANSWERS as u64, bytes: ByteSize::mib(1), age: AGE };

/// One call for one partition.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Commit(Transfer),
    Open(Epoch),
    Remove,
}

/// Moves an amount from one account to another.
#[derive(Debug, Clone)]
pub(super) struct Transfer {
    pub(super) epoch: Epoch,
    /// The handle is of a partition that was removed.
    pub(super) is_gone: bool,
    pub(super) accounts: [&'static str; 2],
    pub(super) amount: i64,
    pub(super) key: Option<String>,
    pub(super) unix_millis: u64,
}

/// What a call is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Sequence(Sequence),
    Done,
    AlreadyApplied,
    Fenced(Epoch),
    Removed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    key: String,
    body: String,
    sequence: Sequence,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) epoch: Epoch,
    pub(super) sequence: Sequence,
    accounts: BTreeMap<String, i64>,
    answers: Vec<Answer>,
    kept: Vec<(Epoch, Sequence)>,
}

/// A model and what its answers age by, which can't be read from outside.
#[derive(Debug, Clone)]
pub(super) struct Timed {
    pub(super) model: Model,
    times: VecDeque<u64>,
}

/// What a call does to a partition, and its answer.
pub(super) fn apply(partition: &mut Option<Timed>, call: &Call) -> Said {
    match (call, partition) {
        (Call::Commit(transfer), Some(timed)) if !transfer.is_gone => timed.commit(transfer),
        (Call::Commit(_), _) => Said::Removed,
        (Call::Open(epoch), Some(Timed { model, .. })) if *epoch < model.epoch => Said::Fenced(model.epoch),
        (Call::Open(epoch), Some(Timed { model, .. })) => {
            model.epoch = *epoch;
            Said::Done
        }
        (Call::Open(epoch), partition) => {
            *partition = Some(Timed::empty(*epoch));
            Said::Done
        }
        (Call::Remove, partition) => {
            *partition = None;
            Said::Done
        }
    }
}

impl Timed {
    pub(super) const fn empty(epoch: Epoch) -> Self {
        Self { model: Model::empty(epoch), times: VecDeque::new() }
    }

    fn commit(&mut self, transfer: &Transfer) -> Said {
        let model = &mut self.model;
        if transfer.epoch != model.epoch {
            return Said::Fenced(model.epoch);
        }
        if transfer.key.as_ref().is_some_and(|key| model.answers.iter().any(|answer| answer.key == *key)) {
            return Said::AlreadyApplied;
        }
        model.sequence = model.sequence.next();
        for (account, balance) in model.after(transfer) {
            if balance == 0 {
                model.accounts.remove(account);
            } else {
                model.accounts.insert(account.to_owned(), balance);
            }
        }
        let room = ANSWERS - usize::from(transfer.key.is_some());
        let is_old = |time: &u64| u128::from(transfer.unix_millis - time) > AGE.as_millis();
        while self.times.len() > room || self.times.front().is_some_and(is_old) {
            self.times.pop_front();
            model.answers.remove(0);
        }
        if let Some(key) = &transfer.key {
            self.times.push_back(transfer.unix_millis);
            let (key, body) = (key.clone(), transfer.body());
            model.answers.push(Answer { key, body, sequence: model.sequence });
        }
        model.kept.push((model.epoch, model.sequence));
        model.kept.drain(..model.kept.len().saturating_sub(RECORDS));
        Said::Sequence(model.sequence)
    }

    /// The record of a transfer.
    pub(super) fn record(&self, transfer: &Transfer) -> CommitRecord {
        let mut writes = WriteSet::default();
        for (account, balance) in self.model.after(transfer) {
            match balance {
                0 => writes.delete(BUCKET, account),
                _ => writes.put(BUCKET, account, Bytes::from(balance.to_string())),
            }
        }
        let idempotency = transfer.key.as_ref().map(|key| Idempotency {
            key: key.parse().expect("a valid key"),
            request: Digest::of(key.as_bytes()),
            response: StoredResponse { status: 200, headers: Vec::new(), body: Bytes::from(transfer.body()) },
        });
        let history = HistoryWindow { records: RECORDS as u64, bytes: ByteSize::mib(1), age: Duration::MAX };
        CommitRecord {
            writes,
            idempotency,
            exchange: None,
            schema: None,
            meter: Meter { succeeded: 1, ..Meter::default() },
            quota: ByteSize::mib(1),
            retention: Retention { history: Some(history), idempotency: None },
            unix_millis: transfer.unix_millis,
        }
    }
}

impl Transfer {
    fn body(&self) -> String {
        format!("{} from {} to {}", self.amount, self.accounts[0], self.accounts[1])
    }
}

impl Model {
    const fn empty(epoch: Epoch) -> Self {
        Self {
            epoch,
            sequence: Sequence(0),
            accounts: BTreeMap::new(),
            answers: Vec::new(),
            kept: Vec::new(),
        }
    }

    fn after(&self, transfer: &Transfer) -> [(&'static str, i64); 2] {
        let balance = |account| self.accounts.get(account).copied().unwrap_or(0);
        let [from, to] = transfer.accounts;
        [(from, balance(from) - transfer.amount), (to, balance(to) + transfer.amount)]
    }

    /// What an engine shows of a partition, with the answers of all these keys.
    pub(super) fn read<'a>(
        partition: &dyn PartitionState,
        keys: impl Iterator<Item = &'a String>,
    ) -> Result<Self, ReadError> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let snapshot = partition.snapshot()?;
        let mut accounts = BTreeMap::new();
        for name in snapshot.list_keys(BUCKET, None, 100)?.keys {
            let balance = snapshot.get(BUCKET, &name)?.map(|bytes| text(&bytes)).unwrap_or_default();
            let what = format!("the balance {balance:?} of {name}");
            accounts.insert(name, balance.parse().map_err(|_| ReadError::Corrupt { what })?);
        }
        let mut answers = Vec::new();
        for key in keys {
            if let Some(answer) = partition.answer(&key.parse().expect("a valid key"))? {
                let (key, body) = (key.clone(), text(&answer.response.body));
                answers.push(Answer { key, body, sequence: answer.sequence });
            }
        }
        answers.sort_by_key(|answer| answer.sequence);
        let kept = partition.history(Sequence(0), 100)?.records;
        let kept = kept.iter().map(|record| (record.epoch, record.sequence)).collect();
        Ok(Self { epoch: partition.epoch(), sequence: snapshot.sequence(), accounts, answers, kept })
    }
}
