//! Starting and stopping the local engine, and the operations on whole partitions.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::thread::JoinHandle;

use hvm_types::{ByteSize, Epoch, ReplicaId};

use super::acknowledged::{Acknowledged, Count};
use super::codec::unseal;
use super::committer::Committer;
use super::config::LocalConfig;
use super::directory::Directory;
use super::import::LocalImport;
use super::layout::{self, Chain, Number};
use super::open::OpenPartitions;
use super::partition::LocalPartition;
use super::purge::Purge;
use super::scan::LocalScan;
use super::shared::{Job, Shared};
use super::stage::{corrupt, read_head};
use super::store::{Store, View};
use crate::state::{
    CommitError, Import, ImportError, OpenError, PartitionInfo, PartitionState, ReadError, Scan, StartError,
    StateEngine,
};

/// The state of all partitions of this host, in one directory of its disk. Dropping it waits for the records
/// that are queued; handles that outlive it are refused.
pub struct LocalEngine {
    shared: Arc<Shared>,
    committer: Option<JoinHandle<()>>,
}

impl LocalEngine {
    /// Opens the state in a directory, or creates it, and recovers what an earlier process left.
    ///
    /// # Errors
    /// [`StartError::Locked`] while another process has the directory, [`StartError::Corrupt`] where
    /// acknowledged records are damaged or missing, and others of [`StartError`].
    pub fn start(config: LocalConfig) -> Result<Self, StartError> {
        let directory = Arc::new(Directory::lock(&config.directory)?);
        let io = |action| {
            let path = directory.path().to_owned();
            move |source| StartError::Io { action, path, source }
        };
        let path = directory.acknowledged();
        let mut count = Acknowledged::read(&path).map_err(io("read the acknowledged count in"))?;
        if count.is_none() && !directory.database().exists() {
            check_space(&config, &directory)?;
            let first = Count { database: random_name(), batches: 0, failed: false };
            Acknowledged::open(&path, first).map_err(io("write the acknowledged count in"))?;
            count = Some(first);
        }
        let (store, chain) = Store::open(&directory, config.cache.0, count)?;
        File::open(directory.path()).and_then(|file| file.sync_all()).map_err(io("sync the directory"))?;
        let database = || count.map_or_else(random_name, |count| count.database);
        let chain = chain.unwrap_or_else(|| Chain::new(database()));
        let count = Count { database: chain.database, batches: chain.count, failed: false };
        let acknowledged = Acknowledged::open(&path, count).map_err(io("write the acknowledged count in"))?;

        let view = store.view();
        let damaged =
            |error: ReadError| StartError::Corrupt { path: directory.database(), what: error.to_string() };
        let next_number = read_next_number(&view).map_err(damaged)?;
        let purges = Purge::unfinished(&view).map_err(damaged)?.into();
        #[allow(
            clippy::disallowed_methods,
            reason = "bounded by what is counted in and out of it; a bounded channel makes room for all of it at once"
        )]
        let (sender, jobs) = channel();
        let shared = Arc::new(Shared::new(config, sender, view));
        let committer = Committer {
            shared: Arc::clone(&shared),
            jobs,
            directory: Arc::clone(&directory),
            store: Some(store),
            acknowledged,
            chain,
            next_number,
            open: OpenPartitions::default(),
            purges,
            purge_waits: false,
            failure: None,
        };
        let committer = std::thread::Builder::new()
            .name("hvm-committer".to_owned())
            .spawn(move || committer.run())
            .map_err(io("start the thread that commits to"))?;
        Ok(Self { shared, committer: Some(committer) })
    }
}

impl Drop for LocalEngine {
    fn drop(&mut self) {
        self.shared.send(Job::Stop);
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("the thread that commits state had panicked");
        }
    }
}

impl StateEngine for LocalEngine {
    fn open(&self, id: &ReplicaId, epoch: Epoch) -> Result<Arc<dyn PartitionState>, OpenError> {
        let (reply, answer) = sync_channel(1);
        let stopped = OpenError::Unavailable { id: id.clone(), reason: CommitError::stopped().to_string() };
        let cell = self.ask(Job::Open { id: id.clone(), epoch, reply }, &answer).unwrap_or(Err(stopped))?;
        Ok(Arc::new(LocalPartition::new(Arc::clone(&self.shared), cell, epoch)))
    }

    fn partitions(&self) -> Result<Vec<PartitionInfo>, ReadError> {
        let view = self.shared.view()?;
        let prefix = layout::names();
        let mut partitions = Vec::new();
        for key in view.keys(&prefix, None) {
            let key = key?;
            let damaged = |what: &str| ReadError::Corrupt { what: what.to_owned() };
            let id = std::str::from_utf8(&key[prefix.key.len()..]).ok().and_then(|text| text.parse().ok());
            let id: ReplicaId = id.ok_or_else(|| damaged("the name of a partition is not one"))?;
            let number = view.get(&layout::name(&id))?.ok_or_else(|| damaged("a partition has no number"))?;
            let (number, _): (Number, _) = unseal(&number).map_err(corrupt)?;
            let head = read_head(&view, number)?.ok_or_else(|| damaged("a partition has no head"))?;
            partitions.push(PartitionInfo {
                id,
                epoch: head.epoch,
                sequence: head.sequence,
                stored: ByteSize(head.stored),
                answers: head.answers.next - head.answers.first,
                meter: head.meter,
                owner: None,
            });
        }
        partitions.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(partitions)
    }

    fn scan(&self, id: &ReplicaId) -> Result<Option<Box<dyn Scan>>, ReadError> {
        let scan = LocalScan::new(self.shared.view()?, id)?;
        Ok(scan.map(|scan| Box::new(scan) as Box<dyn Scan>))
    }

    fn import(&self, id: &ReplicaId, epoch: Epoch, replace: bool) -> Result<Box<dyn Import>, ImportError> {
        Ok(Box::new(LocalImport::begin(&self.shared, id, epoch, replace)?))
    }

    fn remove(&self, id: &ReplicaId) -> Result<(), CommitError> {
        let (reply, answer) = sync_channel(1);
        self.ask(Job::Remove { id: id.clone(), reply }, &answer).unwrap_or(Err(CommitError::stopped()))
    }
}

impl LocalEngine {
    #[cfg(test)]
    pub(super) fn view(&self) -> Result<View, ReadError> {
        self.shared.view()
    }

    /// Asks the committer; `None` when it has stopped.
    fn ask<T>(&self, job: Job, answer: &Receiver<T>) -> Option<T> {
        if self.shared.send(job) { answer.recv().ok() } else { None }
    }
}

fn check_space(config: &LocalConfig, directory: &Directory) -> Result<(), StartError> {
    let path = directory.path().to_owned();
    match config.free_space.measure(&path) {
        Ok(free) if free >= config.reserve => Ok(()),
        Ok(free) => Err(StartError::StorageFull { path, free, needed: config.reserve }),
        Err(source) => Err(StartError::Io { action: "measure the free space of", path, source }),
    }
}

fn read_next_number(view: &View) -> Result<u64, ReadError> {
    match view.get(&layout::next_number())? {
        Some(bytes) => Ok(unseal::<Number>(&bytes).map_err(corrupt)?.0.0),
        None => Ok(1),
    }
}

/// A name for a new database that no guest can guess: the standard library's hash keys are random.
fn random_name() -> [u8; 16] {
    let mut name = [0; 16];
    for half in name.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(0_u8).to_ne_bytes());
    }
    name
}

#[cfg(test)]
mod tests {
    use hvm_types::{Meter, Sequence};

    use super::*;
    use crate::state::{CommitRecord, Retention, WriteSet};

    #[test]
    fn a_batch_that_failed_before_a_restart_is_cut() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("acknowledged");
        let id: ReplicaId = "ledger/accounts/0".parse().expect("a valid id");
        let start = || LocalEngine::start(LocalConfig::new(directory.path())).expect("the engine starts");
        let engine = start();
        let partition = engine.open(&id, Epoch(1)).expect("the partition opens");
        let record = || CommitRecord {
            writes: WriteSet::default(),
            idempotency: None,
            exchange: None,
            schema: None,
            meter: Meter::default(),
            quota: ByteSize::mib(1),
            retention: Retention::default(),
            unix_millis: 0,
        };
        for expected in 1..=3 {
            assert_eq!(partition.commit(record()).wait(), Ok(Sequence(expected)));
        }
        drop((partition, engine));
        // As if the sync of the third record had failed: it is in the journal, but was never answered.
        let count = Acknowledged::read(&path).expect("the file").expect("a count");
        let failed = Count { batches: count.batches - 1, failed: true, ..count };
        drop(Acknowledged::open(&path, failed).expect("the file is written"));

        let engine = start();
        assert_eq!(Acknowledged::read(&path).expect("the file"), Some(Count { failed: false, ..failed }));
        let partition = engine.open(&id, Epoch(1)).expect("the partition opens");
        assert_eq!(partition.sequence(), Ok(Sequence(2)));
        assert_eq!(partition.commit(record()).wait(), Ok(Sequence(3)));
        drop((partition, engine));
        assert_eq!(start().partitions().expect("a list")[0].sequence, Sequence(3));
    }
}
