//! The state engine alone: one durable commit, and commits of a thousand partitions that share syncs.

use std::cell::{LazyCell, RefCell};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use futures::future::join_all;
use hvm_benches::SUBJECT;
use hvm_runtime::state::{
    CommitRecord, LocalConfig, LocalEngine, PartitionState, Retention, StateEngine, WriteSet,
};
use hvm_types::{ByteSize, Epoch, Meter};

use crate::bed;
use crate::many::{PARTITIONS, RECORDS};
use hvm_benches::disk::{self, BareFjall, RawLog};

pub(crate) fn bench(criterion: &mut Criterion) {
    bench_one(criterion);
    bench_many(criterion);
}

fn bench_one(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one durable commit of 128 bytes");
    let state = LazyCell::new(|| State::open(1));
    let mut next = 0;
    group.bench_function(SUBJECT, move |bencher| {
        let partition = &state.partitions[0];
        bencher.iter(|| {
            next += 1;
            partition.commit(record(next)).wait().expect("room on the disk")
        });
    });
    bench_log(&mut group, "one write + fdatasync", 1);
    bench_fjall(&mut group, "bare fjall, one synced batch", 1);
    group.finish();
}

/// Every partition commits again as soon as its last commit is acknowledged.
fn bench_many(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commits over 1,000 partitions");
    group.throughput(Throughput::Elements(PARTITIONS.into()));
    let state = LazyCell::new(|| State::open(PARTITIONS));
    let executor = bed::executor();
    group.bench_function(SUBJECT, move |bencher| {
        bencher.iter_custom(|iterations| {
            let clients = state.partitions.iter().map(|partition| commit_in_a_row(&**partition, iterations));
            let began = Instant::now();
            black_box(executor.block_on(join_all(clients)));
            began.elapsed()
        });
    });
    bench_log(&mut group, "one write of 1,000 + fdatasync", RECORDS);
    bench_fjall(&mut group, "bare fjall, synced batches of 1,000", RECORDS);
    group.finish();
}

fn bench_log(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, records: usize) {
    let log = LazyCell::new(|| RefCell::new(RawLog::default()));
    group.bench_function(name, move |bencher| {
        let mut log = log.borrow_mut();
        bencher.iter_custom(|iterations| {
            let began = Instant::now();
            for _ in 0..iterations {
                log.append(records);
            }
            began.elapsed()
        });
    });
}

fn bench_fjall(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, records: usize) {
    let fjall = LazyCell::new(|| RefCell::new(BareFjall::default()));
    group.bench_function(name, move |bencher| {
        let mut fjall = fjall.borrow_mut();
        bencher.iter(|| fjall.commit(records));
    });
}

async fn commit_in_a_row(partition: &dyn PartitionState, commits: u64) {
    for number in 0..commits {
        partition.commit(record(number)).await.expect("room on the disk");
    }
}

fn record(number: u64) -> CommitRecord {
    let mut writes = WriteSet::default();
    writes.put("default", &disk::key(number), Bytes::from_static(&[b'r'; disk::VALUE_BYTES]));
    CommitRecord {
        writes,
        idempotency: None,
        exchange: None,
        schema: None,
        meter: Meter::default(),
        quota: ByteSize::mib(1024),
        retention: Retention::default(),
        unix_millis: bed::UNIX_MILLIS,
    }
}

/// Open partitions of an engine in a folder of its own.
struct State {
    partitions: Vec<Arc<dyn PartitionState>>,
    _engine: LocalEngine,
    _folder: tempfile::TempDir,
}

impl State {
    fn open(partitions: u32) -> Self {
        let folder = disk::folder();
        let engine = LocalEngine::start(LocalConfig::new(folder.path().join("state"))).expect("a new state");
        let open = |index| engine.open(&bed::replica(index), Epoch(1)).expect("a new partition");
        Self { partitions: (0..partitions).map(open).collect(), _engine: engine, _folder: folder }
    }
}
