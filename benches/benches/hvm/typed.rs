//! One typed query, in process, on the partition's own worker; its floor is the same call of the same component in bare
//! wasmtime, on a fiber as ours is.

use std::cell::{LazyCell, RefCell};
use std::time::{Duration, Instant};

use criterion::Criterion;
use guests_path::Guest;
use hvm_benches::SUBJECT;
use hvm_runtime::{Call, PartitionSpec};
use tokio::runtime::Runtime;
use wasmtime::Store;
use wasmtime::component::{Component, ComponentType, Lift, TypedFunc};

use crate::bed::{self, Bed};
use hvm_benches::bare::{Bare, Host};

/// What is echoed.
const PAYLOAD: &[u8] = b"sixteen bytes ..";

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one typed query, instance reused");
    let bed = LazyCell::new(|| {
        let bed = Bed::new(1);
        let spec = PartitionSpec::new(bed::replica(0), bed.compile(Guest::Typed));
        bed.open(PartitionSpec { grants: bed::all_grants(), ..spec });
        bed
    });
    group.bench_function(SUBJECT, |bencher| {
        bencher.iter_custom(|iterations| time(&bed, iterations));
    });
    drop(bed);
    let floor = LazyCell::new(|| RefCell::new(BareTyped::new()));
    group.bench_function("bare wasmtime, call on a fiber", move |bencher| {
        bencher.iter_custom(|iterations| floor.borrow_mut().time(iterations));
    });
    group.finish();
}

fn time(bed: &Bed, iterations: u64) -> Duration {
    let asking = move |hvm: hvm_runtime::Hvm| async move {
        let id = bed::replica(0);
        let began = Instant::now();
        for _ in 0..iterations {
            let answer = hvm.call(&id, Call::query("echo", PAYLOAD)).await.expect("an answer");
            assert_eq!(answer.len(), PAYLOAD.len());
        }
        began.elapsed()
    };
    bed.on_worker(0, asking).wait()
}

/// `failure` of `hvm:app/handler`.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
struct Failure {
    #[expect(dead_code, reason = "part of the interface; echo never fails")]
    kind: FailureKind,
    #[expect(dead_code, reason = "part of the interface; echo never fails")]
    message: String,
}

/// `failure-kind` of `hvm:app/handler`.
#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "part of the interface; echo never fails")]
enum FailureKind {
    #[component(name = "invalid")]
    Invalid,
    #[component(name = "denied")]
    Denied,
    #[component(name = "not-found")]
    NotFound,
    #[component(name = "conflict")]
    Conflict,
    #[component(name = "unavailable")]
    Unavailable,
    #[component(name = "internal")]
    Internal,
}

type Query = TypedFunc<(&'static str, &'static [u8]), (Result<Vec<u8>, Failure>,)>;

/// An instance in bare wasmtime and its `query`.
struct BareTyped {
    store: Store<Host>,
    query: Query,
    executor: Runtime,
}

impl BareTyped {
    fn new() -> Self {
        let bare = Bare::new(1);
        let component =
            Component::new(&bare.engine, bed::component(Guest::Typed)).expect("a sound component");
        let mut store = Store::new(&bare.engine, Host::default());
        let executor = bed::executor();
        let instance = executor
            .block_on(bare.linker.instantiate_async(&mut store, &component))
            .expect("everything is linked");
        let handler = instance.get_export_index(&mut store, None, "hvm:app/handler@0.1.0");
        let query = instance.get_export_index(&mut store, handler.as_ref(), "query").expect("it is typed");
        let query = instance.get_typed_func(&mut store, query).expect("it has the interface's types");
        Self { store, query, executor }
    }

    fn time(&mut self, iterations: u64) -> Duration {
        let Self { store, query, executor } = self;
        executor.block_on(async {
            let began = Instant::now();
            for _ in 0..iterations {
                let (answer,) = query.call_async(&mut *store, ("echo", PAYLOAD)).await.expect("no trap");
                assert_eq!(answer.expect("an answer").len(), PAYLOAD.len());
            }
            began.elapsed()
        })
    }
}
