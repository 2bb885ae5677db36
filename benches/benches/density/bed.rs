//! An HVM with many partitions of `hello`, and asking them from the workers, where an ingress would be.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use guests_path::Guest;
use http::{Request, StatusCode};
use hvm_runtime::state::{LocalConfig, LocalEngine};
use hvm_runtime::{Hvm, HvmConfig, Module, PartitionSpec, RequestBody};
use hvm_types::ReplicaId;
use tokio::runtime::Runtime;

/// Partitions that are opened at the same time, as an agent does.
const OPENING: usize = 64;
/// Time between two looks while something is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// Whether partitions have durable state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Stateful,
    Stateless,
}

/// A running HVM and its partitions.
pub(crate) struct Bed {
    pub(crate) hvm: Hvm,
    pub(crate) ids: Arc<Vec<ReplicaId>>,
    module: Module,
    executor: Runtime,
    _folder: tempfile::TempDir,
}

impl Bed {
    /// An HVM with this host's defaults, whose partitions hibernate after this time.
    pub(crate) fn new(hibernate_after: Duration) -> Self {
        let parent = env!("CARGO_TARGET_TMPDIR");
        let folder = tempfile::Builder::new().prefix("density-").tempdir_in(parent);
        let folder = folder.expect("the target directory can be written to");
        let engine = LocalEngine::start(LocalConfig::new(folder.path().join("state"))).expect("a new state");
        let config = HvmConfig { hibernate_after, ..HvmConfig::new(folder.path().join("code")) };
        let executor =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
        let hvm = Hvm::start(config, Arc::new(engine)).expect("this host can run an HVM");
        let component = fs::read(Guest::Hello.component()).expect("the guests are built");
        let module = executor.block_on(hvm.compile(component.into())).expect("the guest compiles");
        Self { hvm, ids: Arc::default(), module, executor, _folder: folder }
    }

    /// Opens partitions.
    pub(crate) fn open(&mut self, count: u32, kind: Kind) {
        let id = |index: u32| -> ReplicaId {
            format!("bench/{kind:?}/{index}").to_lowercase().parse().expect("a valid id")
        };
        let ids: Vec<_> = (0..count).map(id).collect();
        let specs = ids.iter().map(|id| PartitionSpec {
            stateful: kind == Kind::Stateful,
            ..PartitionSpec::new(id.clone(), self.module.clone())
        });
        let opening = stream::iter(specs).map(|spec| self.hvm.open(spec)).buffer_unordered(OPENING);
        self.executor.block_on(opening.for_each(async |opened| opened.expect("the partition opens")));
        self.ids = Arc::new(ids);
    }

    /// Waits until so many partitions have an instance.
    pub(crate) fn wait_for_live(&self, is_enough: impl Fn(usize) -> bool) {
        while !is_enough(self.live()) {
            std::thread::sleep(LOOK);
        }
    }

    /// Partitions that have an instance.
    pub(crate) fn live(&self) -> usize {
        self.hvm.observe().iter().filter(|partition| partition.instances > 0).count()
    }

    /// Runs a task on each worker with the partitions that are pinned there, and returns what they return.
    pub(crate) fn on_workers<F, T>(
        &self,
        make: impl Fn(Hvm, Vec<ReplicaId>) -> F + Clone + Send + 'static,
    ) -> Vec<T>
    where
        F: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let workers = self.hvm.workers();
        let (sender, receiver) = sync_channel(workers.len());
        for worker in workers {
            let of_worker = |id: &&ReplicaId| self.hvm.worker_index(id) == worker.index();
            let ids: Vec<_> = self.ids.iter().filter(of_worker).cloned().collect();
            let (hvm, sender, make) = (self.hvm.clone(), sender.clone(), make.clone());
            let task = move || async move { drop(sender.send(make(hvm, ids).await)) };
            self.executor.block_on(worker.spawn(task)).expect("the HVM runs");
        }
        workers.iter().map(|_| receiver.recv().expect("the task ended without a panic")).collect()
    }

    /// Stops the HVM.
    pub(crate) fn stop(self) {
        self.executor.block_on(self.hvm.shutdown());
    }
}

/// Asks a partition once and reads the whole answer. Returns how long that took.
pub(crate) async fn ask(hvm: &Hvm, id: &ReplicaId) -> Duration {
    let request = Request::get("http://bench.example/").body(RequestBody::empty()).expect("a valid request");
    let began = Instant::now();
    let response = hvm.request(id, request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.expect("a whole answer");
    began.elapsed()
}
