//! One request from end to end, in process: no network, no ingress. The floor of a query is the same component in bare
//! wasmtime; that of a command also syncs one record.

use std::cell::{LazyCell, RefCell};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use guests_path::Guest;
use http::{Method, StatusCode};
use hvm_benches::SUBJECT;
use hvm_runtime::{Hvm, PartitionSpec};
use hvm_types::{InstancePolicy, ReplicaId};
use tokio::runtime::Runtime;

use crate::bed::{self, Bed, Question};
use hvm_benches::bare::{Bare, BareInstance};
use hvm_benches::disk::RawLog;

const REUSED: &str = "bare wasmtime, instance reused";

pub(crate) fn bench_queries(criterion: &mut Criterion) {
    let hello = Question::new(Method::GET, "/", StatusCode::OK);
    let mut group = criterion.benchmark_group("one query, instance reused");
    let bed = LazyCell::new(|| hello_bed(InstancePolicy::Reuse));
    group.bench_function(SUBJECT, |bencher| {
        bencher.iter_custom(|iterations| bed.time_on_worker(&hello, iterations));
    });
    bench_reused(&mut group, REUSED, Guest::Hello, &hello);
    group.finish();

    let mut group = criterion.benchmark_group("one query from another thread, instance reused");
    group.bench_function(SUBJECT, |bencher| {
        let OnePartition { bed, id } = &*bed;
        bencher.iter_custom(|iterations| bed.executor.block_on(time(&bed.hvm, id, &hello, iterations)));
    });
    drop(bed);
    bench_reused(&mut group, REUSED, Guest::Hello, &hello);
    group.finish();

    let mut group = criterion.benchmark_group("one query, instance made anew");
    let bed = LazyCell::new(|| hello_bed(InstancePolicy::PerRequest));
    group.bench_function(SUBJECT, move |bencher| {
        bencher.iter_custom(|iterations| bed.time_on_worker(&hello, iterations));
    });
    bench_fresh(&mut group);
    group.finish();

    let read = Question::new(Method::GET, "/kv/get?k=key", StatusCode::OK);
    let mut group = criterion.benchmark_group("one query that reads a key");
    let bed = LazyCell::new(probe_bed);
    group.bench_function(SUBJECT, |bencher| {
        bencher.iter_custom(|iterations| bed.time_on_worker(&read, iterations));
    });
    drop(bed);
    bench_reused(&mut group, "bare wasmtime, key in a map", Guest::Probe, &read);
    group.finish();
}

pub(crate) fn bench_command(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one command that writes a key, durable");
    let bed = LazyCell::new(probe_bed);
    group.bench_function(SUBJECT, move |bencher| {
        bencher.iter_custom(|iterations| bed.time_on_worker(&write(), iterations));
    });
    let floor = LazyCell::new(|| RefCell::new((BareGuest::new(Guest::Probe), RawLog::default())));
    group.bench_function("bare wasmtime + one write + fdatasync", move |bencher| {
        let (guest, log) = &mut *floor.borrow_mut();
        bencher.iter_custom(|iterations| guest.time(&write(), iterations, || log.append(1)));
    });
    group.finish();
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn bench_reused(group: &mut Group<'_>, name: &str, guest: Guest, question: &Question) {
    let floor = LazyCell::new(|| {
        let mut guest = BareGuest::new(guest);
        if guest.has_state {
            guest.time(&write(), 1, || ());
        }
        RefCell::new(guest)
    });
    group.bench_function(name, move |bencher| {
        bencher.iter_custom(|iterations| floor.borrow_mut().time(question, iterations, || ()));
    });
}

fn bench_fresh(group: &mut Group<'_>) {
    let hello = Question::new(Method::GET, "/", StatusCode::OK);
    let module = LazyCell::new(|| Bare::new(1024).compile(&bed::component(Guest::Hello)));
    let executor = bed::executor();
    group.bench_function("bare wasmtime, instance made anew", move |bencher| {
        bencher.iter_custom(|iterations| {
            executor.block_on(async {
                let began = Instant::now();
                for _ in 0..iterations {
                    hello.ask_bare(&mut module.instantiate().await).await;
                }
                began.elapsed()
            })
        });
    });
}

/// A command that writes a key of 3 bytes and a value of 100.
pub(crate) fn write() -> Question {
    let value = "v".repeat(100);
    Question::new(Method::POST, &format!("/kv/set?k=key&v={value}"), StatusCode::NO_CONTENT)
}

/// An HVM with one partition.
struct OnePartition {
    bed: Bed,
    id: ReplicaId,
}

/// One partition that answers `hello`.
fn hello_bed(instance: InstancePolicy) -> OnePartition {
    let bed = Bed::new(1);
    let module = bed.compile(Guest::Hello);
    let id = bed.open(PartitionSpec { instance, ..PartitionSpec::new(bed::replica(0), module) });
    OnePartition { bed, id }
}

/// One partition that has written its key.
fn probe_bed() -> OnePartition {
    let bed = Bed::new(1);
    let module = bed.compile(Guest::Probe);
    let spec = PartitionSpec::new(bed::replica(0), module);
    let id = bed.open(PartitionSpec { grants: bed::all_grants(), ..spec });
    let partition = OnePartition { bed, id };
    partition.time_on_worker(&write(), 1);
    partition
}

impl OnePartition {
    /// Asks on the partition's worker, as an ingress there does: nothing is handed over.
    fn time_on_worker(&self, question: &Question, iterations: u64) -> Duration {
        let (id, question) = (self.id.clone(), question.clone());
        let asking = move |hvm| async move { time(&hvm, &id, &question, iterations).await };
        self.bed.on_worker(0, asking).wait()
    }
}

async fn time(hvm: &Hvm, id: &ReplicaId, question: &Question, iterations: u64) -> Duration {
    let began = Instant::now();
    for _ in 0..iterations {
        question.ask(hvm, id).await;
    }
    began.elapsed()
}

/// One instance in bare wasmtime that answers everything.
struct BareGuest {
    instance: BareInstance,
    executor: Runtime,
    has_state: bool,
}

impl BareGuest {
    fn new(guest: Guest) -> Self {
        let module = Bare::new(1).compile(&bed::component(guest));
        let executor = bed::executor();
        let instance = executor.block_on(module.instantiate());
        Self { instance, executor, has_state: guest == Guest::Probe }
    }

    fn time(&mut self, question: &Question, iterations: u64, mut after_each: impl FnMut()) -> Duration {
        self.executor.block_on(async {
            let began = Instant::now();
            for _ in 0..iterations {
                question.ask_bare(&mut self.instance).await;
                after_each();
            }
            began.elapsed()
        })
    }
}
