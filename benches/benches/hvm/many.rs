//! Commands to a thousand partitions at the same time, through the whole HVM on all cores. The floor does the guests'
//! work and the log's one after another on one thread: with more than one core we may be faster.

use std::cell::{LazyCell, RefCell};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use futures::future::join_all;
use guests_path::Guest;
use hvm_benches::SUBJECT;
use hvm_runtime::{Hvm, PartitionSpec};
use hvm_types::ReplicaId;

use crate::bed::{self, Bed, Question};
use crate::request;
use hvm_benches::bare::{Bare, BareInstance};
use hvm_benches::disk::RawLog;

/// Partitions, each with one request at a time.
pub(crate) const PARTITIONS: u32 = 1_000;
/// What all of them write at once.
pub(crate) const RECORDS: usize = PARTITIONS as usize;
/// An iteration takes about a tenth of a second.
const SAMPLES: usize = 10;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commands over 1,000 partitions");
    group.throughput(Throughput::Elements(PARTITIONS.into()));
    group.sampling_mode(SamplingMode::Flat).sample_size(SAMPLES);
    let bed = LazyCell::new(open_all);
    group.bench_function(SUBJECT, move |bencher| {
        let (bed, ids) = &*bed;
        bencher.iter_custom(|iterations| time(bed, ids, iterations));
    });
    let executor = bed::executor();
    let floor = LazyCell::new(|| {
        let module = Bare::new(1).compile(&bed::component(Guest::Probe));
        RefCell::new((bed::executor().block_on(module.instantiate()), RawLog::default()))
    });
    group.bench_function("bare wasmtime, one thread + one write + fdatasync", move |bencher| {
        let (instance, log) = &mut *floor.borrow_mut();
        bencher.iter_custom(|iterations| executor.block_on(floor_time(instance, log, iterations)));
    });
    group.finish();
}

fn open_all() -> (Bed, Vec<ReplicaId>) {
    let bed = Bed::new(std::thread::available_parallelism().map_or(1, usize::from));
    let module = bed.compile(Guest::Probe);
    let spec = |index| PartitionSpec {
        grants: bed::all_grants(),
        ..PartitionSpec::new(bed::replica(index), module.clone())
    };
    let ids = (0..PARTITIONS).map(|index| bed.open(spec(index))).collect();
    (bed, ids)
}

/// Each worker asks an equal part of the partitions, on whichever worker they are, as ingresses do.
fn time(bed: &Bed, ids: &[ReplicaId], iterations: u64) -> Duration {
    let workers = bed.hvm.workers().len();
    let write = request::write();
    let began = Instant::now();
    let clients: Vec<_> = ids
        .chunks(ids.len().div_ceil(workers))
        .enumerate()
        .map(|(worker, ids)| {
            let (ids, write) = (ids.to_vec(), write.clone());
            bed.on_worker(worker, move |hvm| async move {
                join_all(ids.iter().map(|id| ask_in_a_row(&hvm, id, &write, iterations))).await;
            })
        })
        .collect();
    for client in clients {
        client.wait();
    }
    began.elapsed()
}

async fn ask_in_a_row(hvm: &Hvm, id: &ReplicaId, question: &Question, times: u64) {
    for _ in 0..times {
        question.ask(hvm, id).await;
    }
}

async fn floor_time(instance: &mut BareInstance, log: &mut RawLog, iterations: u64) -> Duration {
    let write = request::write();
    let began = Instant::now();
    for _ in 0..iterations {
        for _ in 0..RECORDS {
            write.ask_bare(instance).await;
        }
        log.append(RECORDS);
    }
    began.elapsed()
}
