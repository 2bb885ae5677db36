//! The material of a simulation: a few lines where the engine has a database. It keeps, per partition, which
//! key was applied at which sequence and with which epoch.

use std::collections::BTreeMap;

use bytes::Bytes;
use hvm_types::{Epoch, ReplicaId, Sequence};
use tokio::sync::oneshot;

use crate::state::shared::image::{Change, Image};
use crate::state::shared::material::Material;
use crate::state::shared::names::LogName;
use crate::state::{CommitError, ReadError};

/// One record: a key that must be applied once.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) id: ReplicaId,
    pub(super) epoch: Epoch,
    pub(super) key: String,
    pub(super) reply: oneshot::Sender<Result<Sequence, CommitError>>,
}

#[derive(Debug, Default)]
pub(super) struct Toy(BTreeMap<ReplicaId, Kept>);

#[derive(Debug)]
struct Kept {
    epoch: Epoch,
    fenced: Option<Epoch>,
    image: Image,
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    changes: BTreeMap<ReplicaId, Change>,
    waiting: Vec<(ReplicaId, Sequence, Commit)>,
}

fn at_key(key: &str) -> Bytes {
    Bytes::from(format!("k/{key}"))
}

fn at_sequence(sequence: Sequence) -> Bytes {
    Bytes::from(format!("r/{:08}", sequence.0))
}

/// The records in an image: sequence, epoch, key.
pub(super) fn records(image: &Image) -> Vec<(Sequence, Epoch, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("the toy writes text");
    let records = image.entries.iter().filter_map(|(key, value)| {
        let sequence = text(key).strip_prefix("r/")?.parse().expect("a number");
        let value = text(value);
        let (epoch, key) = value.split_once(' ').expect("two words");
        Some((Sequence(sequence), Epoch(epoch.parse().expect("a number")), key.to_owned()))
    });
    records.collect()
}

impl Toy {
    fn check(&self, batch: &Batch, commit: &Commit) -> Result<Sequence, CommitError> {
        let kept = self.0.get(&commit.id).ok_or(CommitError::Removed)?;
        if let Some(newest) = kept.fenced {
            return Err(CommitError::Fenced { newest });
        }
        if kept.epoch != commit.epoch {
            return Err(CommitError::Fenced { newest: kept.epoch });
        }
        let key = at_key(&commit.key);
        let staged = batch.changes.get(&commit.id);
        let is_staged = staged.is_some_and(|change| change.writes.iter().any(|(staged, _)| *staged == key));
        if kept.image.entries.contains_key(&key) || is_staged {
            return Err(CommitError::AlreadyApplied);
        }
        Ok(staged.map_or(kept.image.sequence, |change| change.last).next())
    }
}

impl Material for Toy {
    type Commit = Commit;
    type Batch = Batch;
    type Handle = Image;
    type Info = ();

    fn stage(&mut self, commits: Vec<Commit>) -> Batch {
        let mut batch = Batch::default();
        for commit in commits {
            match self.check(&batch, &commit) {
                Ok(sequence) => {
                    let after = Sequence(sequence.0 - 1);
                    let id = commit.id.clone();
                    let empty = Change { id: id.clone(), after, last: after, writes: Vec::new() };
                    let change = batch.changes.entry(id.clone()).or_insert(empty);
                    change.last = sequence;
                    let record = format!("{} {}", commit.epoch, commit.key);
                    change.writes.push((at_key(&commit.key), Some(Bytes::new())));
                    change.writes.push((at_sequence(sequence), Some(Bytes::from(record))));
                    batch.waiting.push((id, sequence, commit));
                }
                Err(error) => drop(commit.reply.send(Err(error))),
            }
        }
        batch
    }

    fn changes(&self, batch: &Batch) -> Vec<Change> {
        batch.changes.values().cloned().collect()
    }

    fn withdraw(&mut self, batch: &mut Batch, id: &ReplicaId) {
        batch.changes.remove(id);
        let newest = self.0.get(id).and_then(|kept| kept.fenced).unwrap_or_default();
        for (_, _, commit) in batch.waiting.extract_if(.., |(of, ..)| of == id) {
            drop(commit.reply.send(Err(CommitError::Fenced { newest })));
        }
    }

    fn give_up(&mut self, batch: &mut Batch, reason: &str) {
        self.refuse(
            std::mem::take(&mut batch.waiting).into_iter().map(|(_, _, commit)| commit).collect(),
            reason,
        );
    }

    fn apply(&mut self, batch: Batch) -> Result<(), String> {
        for change in batch.changes.values() {
            let kept = self.0.get_mut(&change.id).expect("what was staged is kept");
            kept.image.apply(change).expect("the toy counts well");
        }
        for (_, sequence, commit) in batch.waiting {
            drop(commit.reply.send(Ok(sequence)));
        }
        Ok(())
    }

    fn refuse(&mut self, commits: Vec<Commit>, reason: &str) {
        for commit in commits {
            drop(commit.reply.send(Err(CommitError::Unavailable { reason: reason.to_owned() })));
        }
    }

    fn install(&mut self, id: &ReplicaId, epoch: Epoch, image: Option<&Image>) -> Result<(), String> {
        let image = image.cloned().unwrap_or_default();
        self.0.insert(id.clone(), Kept { epoch, fenced: None, image });
        Ok(())
    }

    fn raise(&mut self, id: &ReplicaId, epoch: Epoch) -> Result<(), String> {
        let kept = self.0.get_mut(id).expect("what is raised is kept");
        (kept.epoch, kept.fenced) = (epoch, None);
        Ok(())
    }

    fn handle(&self, id: &ReplicaId) -> Option<Image> {
        self.0.get(id).map(|kept| kept.image.clone())
    }

    fn fence(&mut self, id: &ReplicaId, newest: Epoch) {
        if let Some(kept) = self.0.get_mut(id) {
            kept.fenced = Some(newest);
        }
    }

    fn remove(&mut self, id: &ReplicaId) -> Result<(), String> {
        self.0.remove(id);
        Ok(())
    }

    fn image(&self, id: &ReplicaId) -> Result<Image, String> {
        self.0.get(id).map(|kept| kept.image.clone()).ok_or_else(|| "it is not there".to_owned())
    }

    fn info(&self, _: &ReplicaId, _: Epoch, _: &LogName, _: Option<&Image>) -> Result<(), ReadError> {
        Ok(())
    }
}
