//! Queries to many partitions one after another, on one worker: what it costs that each has an instance of its own. The
//! floor asks as many instances in bare wasmtime in the same order, on one thread.

use std::cell::{LazyCell, RefCell};
use std::time::{Duration, Instant};

use criterion::Criterion;
use guests_path::Guest;
use http::{Method, StatusCode};
use hvm_benches::SUBJECT;
use hvm_runtime::PartitionSpec;
use hvm_types::ReplicaId;
use tokio::runtime::Runtime;

use crate::bed::{self, Bed, Question};
use hvm_benches::bare::{Bare, BareInstance};

/// Until all instances have touched all the pages that they use: they take turns some twenty times.
const WARM_UP: Duration = Duration::from_secs(4);

pub(crate) fn bench(criterion: &mut Criterion) {
    let hello = Question::new(Method::GET, "/", StatusCode::OK);
    for (count, name) in [(10, "10"), (1_000, "1,000"), (10_000, "10,000")] {
        let mut group = criterion.benchmark_group(format!("one query, {name} replicas in turn"));
        group.warm_up_time(WARM_UP);
        let turns = LazyCell::new(|| RefCell::new(Turns::new(count)));
        group.bench_function(SUBJECT, |bencher| {
            bencher.iter_custom(|iterations| turns.borrow_mut().time(&hello, iterations));
        });
        // Both at once would need more mappings than a process may have.
        drop(turns);
        let floor = LazyCell::new(|| RefCell::new(BareTurns::new(count)));
        group.bench_function(format!("bare wasmtime, {name} instances in turn"), |bencher| {
            bencher.iter_custom(|iterations| floor.borrow_mut().time(&hello, iterations));
        });
        group.finish();
    }
}

/// Replicas on one worker, in the order of their turns.
struct Turns {
    bed: Bed,
    ids: Vec<ReplicaId>,
}

impl Turns {
    fn new(count: u32) -> Self {
        let bed = Bed::new(1);
        let module = bed.compile(Guest::Hello);
        let spec = |index| PartitionSpec {
            stateful: false,
            ..PartitionSpec::new(bed::replica(index), module.clone())
        };
        let ids = (0..count).map(|index| bed.open(spec(index))).collect();
        let mut turns = Self { bed, ids };
        // From then on each has its instance.
        turns.time(&Question::new(Method::GET, "/", StatusCode::OK), count.into());
        turns
    }

    fn time(&mut self, question: &Question, iterations: u64) -> Duration {
        let (ids, question) = (self.ids.clone(), question.clone());
        let iterations = usize::try_from(iterations).expect("iterations are countable");
        self.ids.rotate_left(iterations % ids.len());
        let asking = move |hvm| async move {
            let began = Instant::now();
            for id in ids.iter().cycle().take(iterations) {
                question.ask(&hvm, id).await;
            }
            began.elapsed()
        };
        self.bed.on_worker(0, asking).wait()
    }
}

/// Instances in bare wasmtime, and whose turn it is.
struct BareTurns {
    executor: Runtime,
    instances: Vec<BareInstance>,
    next: usize,
}

impl BareTurns {
    fn new(count: u32) -> Self {
        let executor = bed::executor();
        let module = Bare::new(count).compile(&bed::component(Guest::Hello));
        let instances = executor.block_on(async {
            let mut instances = Vec::new();
            for _ in 0..count {
                instances.push(module.instantiate().await);
            }
            instances
        });
        Self { executor, instances, next: 0 }
    }

    fn time(&mut self, question: &Question, iterations: u64) -> Duration {
        self.executor.block_on(async {
            let began = Instant::now();
            for _ in 0..iterations {
                question.ask_bare(&mut self.instances[self.next]).await;
                self.next = (self.next + 1) % self.instances.len();
            }
            began.elapsed()
        })
    }
}
