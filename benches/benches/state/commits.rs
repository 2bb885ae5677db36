//! The state engines alone: a thousand clients, each of which commits again as soon as its last commit is acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use hvm_benches::disk;
use hvm_runtime::state::{
    CommitRecord, LocalConfig, LocalEngine, PartitionState, Retention, SharedConfig, SharedEngine,
    SharedStore, StateEngine, WriteSet,
};
use hvm_types::{ByteSize, Epoch, Meter, ReplicaId};

use crate::report::Times;
use crate::{CLIENTS, PARTITIONS};

pub(crate) fn table(each: Duration) -> String {
    let mut table = format!(
        "\n| {CLIENTS} clients commit records of 128 bytes | commits | p50 | p99 |\n|---|--:|--:|--:|\n"
    );
    for (name, shared) in [("local", false), ("shared, a directory on the same disk", true)] {
        for count in PARTITIONS {
            let folder = disk::folder();
            let engine = engine(folder.path(), shared);
            let partitions = open(&*engine, count);
            let (times, took) = commit_for(&partitions, CLIENTS, each);
            table += &format!("| {name}, {count} partitions | {} |\n", times.cells(took));
        }
        let folder = disk::folder();
        let engine = engine(folder.path(), shared);
        let partitions = open(&*engine, 1);
        let (times, took) = commit_for(&partitions, 1, each);
        table += &format!("| {name}, one client | {} |\n", times.cells(took));
    }
    table
}

/// Partitions that are opened at the same time.
pub(crate) const OPENED_AT_ONCE: usize = 32;

/// An engine with its state in a folder.
pub(crate) fn engine(folder: &std::path::Path, shared: bool) -> Arc<dyn StateEngine> {
    if shared {
        let store = SharedStore::directory(&folder.join("shared")).expect("a new directory");
        let host = "bench".parse().expect("a valid id");
        let config = SharedConfig::new(host, store, folder.join("at-hand"));
        Arc::new(SharedEngine::start(config).expect("a new state"))
    } else {
        Arc::new(LocalEngine::start(LocalConfig::new(folder.join("state"))).expect("a new state"))
    }
}

pub(crate) fn open(engine: &dyn StateEngine, count: u32) -> Vec<Arc<dyn PartitionState>> {
    let ids: Vec<u32> = (0..count).collect();
    let open = |index: &u32| engine.open(&id(*index), Epoch(1)).expect("a new partition");
    std::thread::scope(|scope| {
        // Those that are opened at the same time share a sync.
        let chunks = ids.chunks(ids.len().div_ceil(OPENED_AT_ONCE));
        let threads: Vec<_> =
            chunks.map(|ids| scope.spawn(|| ids.iter().map(open).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    })
}

pub(crate) fn id(index: u32) -> ReplicaId {
    format!("bench/partitions/{index}").parse().expect("a valid id")
}

/// A record that writes one key.
pub(crate) fn record(number: u64, value: Bytes, retention: Retention) -> CommitRecord {
    let mut writes = WriteSet::default();
    writes.put("default", &disk::key(number), value);
    CommitRecord {
        writes,
        idempotency: None,
        exchange: None,
        meter: Meter::default(),
        quota: ByteSize::mib(4096),
        retention,
        unix_millis: 1_800_000_000_000 + number,
        schema: None,
    }
}

/// Clients go round the partitions, each with those of its own.
fn commit_for(partitions: &[Arc<dyn PartitionState>], clients: usize, each: Duration) -> (Times, Duration) {
    let executor = tokio::runtime::Builder::new_current_thread().build().expect("an executor");
    let began = Instant::now();
    let client = |client: usize| async move {
        let mut times = Times::default();
        let mut next = client;
        while began.elapsed() < each {
            let partition = &partitions[next % partitions.len()];
            let asked = Instant::now();
            let record =
                record(next as u64, Bytes::from_static(&[b'r'; disk::VALUE_BYTES]), Retention::default());
            partition.commit(record).await.expect("room on the disk");
            times.add(asked.elapsed());
            next += clients;
        }
        times
    };
    let all = executor.block_on(join_all((0..clients).map(client)));
    (Times::merge(all), began.elapsed())
}
