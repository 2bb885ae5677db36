//! What the benches run on: an HVM with its state on the disk, and requests that are the same for it and for the
//! floor.

use std::fs;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use guests_path::Guest;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hvm_benches::bare::BareInstance;
use hvm_runtime::state::{LocalConfig, LocalEngine};
use hvm_runtime::{Hvm, HvmConfig, Module, PartitionSpec, RequestBody};
use hvm_types::{Grants, ReplicaId};
use tokio::runtime::Runtime;

use hvm_benches::disk;

/// The time of commits, where the bench itself commits. No decision depends on it.
pub(crate) const UNIX_MILLIS: u64 = 1_800_000_000_000;

/// An executor for whoever asks.
pub(crate) fn executor() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor")
}

pub(crate) fn replica(index: u32) -> ReplicaId {
    format!("bench/partitions/{index}").parse().expect("a valid id")
}

/// The bytes of a guest's component.
pub(crate) fn component(guest: Guest) -> Bytes {
    fs::read(guest.component()).expect("the guests are built").into()
}

/// A running HVM.
pub(crate) struct Bed {
    pub(crate) hvm: Hvm,
    pub(crate) executor: Runtime,
    _folder: tempfile::TempDir,
}

impl Bed {
    /// An HVM with so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        let folder = disk::folder();
        let engine = LocalEngine::start(LocalConfig::new(folder.path().join("state"))).expect("a new state");
        let mut config = HvmConfig::new(folder.path().join("code"));
        config.workers = NonZeroUsize::new(workers).expect("at least one worker");
        let hvm = Hvm::start(config, Arc::new(engine)).expect("this host can run an HVM");
        Self { hvm, executor: executor(), _folder: folder }
    }

    pub(crate) fn compile(&self, guest: Guest) -> Module {
        self.executor.block_on(self.hvm.compile(component(guest))).expect("the guest compiles")
    }

    pub(crate) fn open(&self, spec: PartitionSpec) -> ReplicaId {
        let id = spec.id.clone();
        self.executor.block_on(self.hvm.open(spec)).expect("the partition opens");
        id
    }

    /// Runs a task on a worker, where an ingress would be, and waits for its result.
    pub(crate) fn on_worker<M, F, T>(&self, worker: usize, make: M) -> Waiting<T>
    where
        M: FnOnce(Hvm) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = sync_channel(1);
        let hvm = self.hvm.clone();
        let task = move || async move { drop(sender.send(make(hvm).await)) };
        let spawned = self.executor.block_on(self.hvm.workers()[worker].spawn(task));
        spawned.expect("the HVM runs");
        Waiting(receiver)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.executor.block_on(self.hvm.clone().shutdown());
    }
}

/// The result of a task that runs on a worker.
pub(crate) struct Waiting<T>(std::sync::mpsc::Receiver<T>);

impl<T> Waiting<T> {
    pub(crate) fn wait(self) -> T {
        self.0.recv().expect("the task ended without a panic")
    }
}

/// Everything that the test guest `probe` asks for.
pub(crate) fn all_grants() -> Grants {
    Grants {
        keyvalue: vec!["default".to_owned()],
        config: true,
        logging: true,
        http: vec!["https://origin.example".to_owned()],
        http_in_commands: false,
    }
}

/// One thing that is asked again and again.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    method: Method,
    uri: Uri,
    expected: StatusCode,
}

impl Question {
    pub(crate) fn new(method: Method, path: &str, expected: StatusCode) -> Self {
        let uri = format!("http://bench.example{path}").parse().expect("a valid path");
        Self { method, uri, expected }
    }

    pub(crate) fn request<B>(&self, body: B) -> Request<B> {
        let builder = Request::builder().method(self.method.clone()).uri(self.uri.clone());
        builder.body(body).expect("a valid request")
    }

    pub(crate) fn check(&self, answered: StatusCode) {
        assert_eq!(answered, self.expected, "{} {}", self.method, self.uri);
    }

    /// Asks an instance of the floor and reads the whole answer.
    pub(crate) async fn ask_bare(&self, instance: &mut BareInstance) {
        let body: Full<Bytes> = Full::default();
        self.check(instance.answer(self.request(body)).await.status());
    }

    /// Asks a partition and reads the whole answer.
    pub(crate) async fn ask(&self, hvm: &Hvm, id: &ReplicaId) {
        let response = hvm.request(id, self.request(RequestBody::empty())).await.expect("an answer");
        self.check(response.status());
        response.into_body().collect().await.expect("a whole answer");
    }
}
