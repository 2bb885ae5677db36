//! Making a partition that serves, and letting it go. The floor is an instance of the same component in bare wasmtime,
//! made and dropped.

use std::cell::LazyCell;
use std::time::Instant;

use criterion::Criterion;
use guests_path::Guest;
use hvm_benches::SUBJECT;
use hvm_runtime::PartitionSpec;

use crate::bed::{self, Bed};
use hvm_benches::bare::Bare;

pub(crate) fn bench(criterion: &mut Criterion) {
    bench_kind(criterion, "open and close a stateless replica", false);
    bench_kind(criterion, "open and close a partition with state", true);
}

fn bench_kind(criterion: &mut Criterion, name: &str, stateful: bool) {
    let mut group = criterion.benchmark_group(name);
    let subject = LazyCell::new(|| {
        let bed = Bed::new(1);
        let module = bed.compile(Guest::Hello);
        (bed, PartitionSpec { stateful, ..PartitionSpec::new(bed::replica(0), module) })
    });
    group.bench_function(SUBJECT, move |bencher| {
        let (bed, spec) = &*subject;
        bencher.iter_custom(|iterations| {
            let spec = spec.clone();
            let opening = move |hvm: hvm_runtime::Hvm| async move {
                let began = Instant::now();
                for _ in 0..iterations {
                    hvm.open(spec.clone()).await.expect("room for one partition");
                    hvm.close(&spec.id).await.expect("it is open");
                }
                began.elapsed()
            };
            bed.on_worker(0, opening).wait()
        });
    });
    let floor = LazyCell::new(|| Bare::new(1024).compile(&bed::component(Guest::Hello)));
    let executor = bed::executor();
    group.bench_function("bare wasmtime, instantiate and drop", move |bencher| {
        bencher.iter_custom(|iterations| {
            executor.block_on(async {
                let began = Instant::now();
                for _ in 0..iterations {
                    drop(floor.instantiate().await);
                }
                began.elapsed()
            })
        });
    });
    group.finish();
}
