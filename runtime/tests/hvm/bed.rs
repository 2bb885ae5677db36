//! What every test stands on: an HVM in a directory of its own, and short ways to ask its partitions.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use guests_path::Guest;
use http::{Method, Request, Response};
use hvm_runtime::state::{LocalConfig, LocalEngine, StateEngine};
use hvm_runtime::{
    Hvm, HvmConfig, LogLine, LogSink, Module, PartitionSpec, PartitionStatus, RequestBody, RequestError,
    ResponseBody,
};
use hvm_types::{Grants, Period, ReplicaId};

/// Longest wait for what should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The lines that partitions wrote.
#[derive(Default)]
pub(crate) struct Lines(Mutex<Vec<(ReplicaId, LogLine)>>);

impl LogSink for Lines {
    fn write(&self, id: &ReplicaId, line: LogLine) {
        self.0.lock().expect("not poisoned").push((id.clone(), line));
    }
}

impl Lines {
    pub(crate) fn all(&self) -> Vec<LogLine> {
        self.0.lock().expect("not poisoned").iter().map(|(_, line)| line.clone()).collect()
    }
}

/// An HVM and its directory.
pub(crate) struct Bed {
    pub(crate) hvm: Hvm,
    pub(crate) lines: Arc<Lines>,
    pub(crate) state: Arc<dyn StateEngine>,
    directory: tempfile::TempDir,
}

/// What came back: status, headers and body, or why the body broke off.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Result<Bytes, RequestError>,
}

impl Answer {
    pub(crate) async fn of(response: Response<ResponseBody>) -> Self {
        let (head, body) = response.into_parts();
        Self { head, body: body.collect().await }
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub(crate) fn text(&self) -> String {
        let body = self.body.as_ref().expect("a whole body");
        String::from_utf8(body.to_vec()).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }
}

/// Compiled code is the same in every test, and named by its content: only the first compiles.
fn code_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-guests")
}

pub(crate) fn id(text: &str) -> ReplicaId {
    text.parse().expect("a valid id")
}

/// The partition that most tests ask.
pub(crate) fn first() -> ReplicaId {
    id("test/probe/0")
}

pub(crate) fn read(guest: Guest) -> Bytes {
    std::fs::read(guest.component()).expect("the component").into()
}

/// Everything that a probe asks for.
pub(crate) fn all_grants() -> Grants {
    Grants {
        keyvalue: vec!["default".to_owned()],
        config: true,
        logging: true,
        http: vec!["https://granted.example".to_owned()],
        http_in_commands: false,
    }
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// One worker unless told: what shares it must get along.
    pub(crate) fn with(change: impl FnOnce(&mut HvmConfig)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::start(directory, change)
    }

    /// The same, and what it compiles is its own.
    pub(crate) fn with_own_code(change: impl FnOnce(&mut HvmConfig)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let code = directory.path().join("code");
        Self::start(directory, |config| {
            config.code_cache = code;
            change(config);
        })
    }

    /// How many components' code is kept where nobody else compiles.
    pub(crate) fn kept_code(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("code")).expect("its code").count()
    }

    fn start(directory: tempfile::TempDir, change: impl FnOnce(&mut HvmConfig)) -> Self {
        let lines = Arc::new(Lines::default());
        let mut config = HvmConfig::new(code_cache());
        config.workers = NonZeroUsize::MIN;
        config.max_instances = 64;
        config.log = Arc::clone(&lines) as Arc<dyn LogSink>;
        change(&mut config);
        let state = LocalEngine::start(LocalConfig::new(directory.path().join("state")));
        let state: Arc<dyn StateEngine> = Arc::new(state.expect("a fresh directory"));
        let hvm = Hvm::start(config, Arc::clone(&state)).expect("this machine can carry it");
        Self { hvm, lines, state, directory }
    }

    /// Stops the HVM and starts another on the same directory.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// The same, with what it compiled itself and other settings.
    pub(crate) async fn restart_with_own_code(self, change: impl FnOnce(&mut HvmConfig)) -> Self {
        let code = self.directory.path().join("code");
        let change = |config: &mut HvmConfig| {
            config.code_cache = code;
            change(config);
        };
        self.restart_with(change).await
    }

    async fn restart_with(self, change: impl FnOnce(&mut HvmConfig)) -> Self {
        let Self { hvm, directory, state, .. } = self;
        drop(state);
        hvm.shutdown().await;
        Self::start(directory, change)
    }

    pub(crate) async fn module(&self, guest: Guest) -> Module {
        self.hvm.compile(read(guest)).await.expect("the guest compiles")
    }

    pub(crate) async fn probe(&self, id: &ReplicaId) -> PartitionSpec {
        let mut spec = PartitionSpec::new(id.clone(), self.module(Guest::Probe).await);
        spec.grants = all_grants();
        spec
    }

    /// Opens a probe, after a change to its spec.
    pub(crate) async fn open(&self, id: &ReplicaId, change: impl FnOnce(&mut PartitionSpec)) {
        let mut spec = self.probe(id).await;
        change(&mut spec);
        self.hvm.open(spec).await.expect("it opens");
    }

    /// An HVM with one probe.
    pub(crate) async fn with_probe() -> Self {
        let bed = Self::new();
        bed.open(&first(), |_| {}).await;
        bed
    }

    /// The same, with a short deadline.
    pub(crate) async fn with_hasty_probe(deadline: Duration) -> Self {
        let bed = Self::new();
        bed.open(&first(), |spec| spec.resources.deadline = Period(deadline)).await;
        bed
    }

    pub(crate) async fn request(
        &self,
        id: &ReplicaId,
        request: Request<RequestBody>,
    ) -> Result<Answer, RequestError> {
        let asked = tokio::time::timeout(PATIENCE, async {
            let response = self.hvm.request(id, request).await?;
            Ok(Answer::of(response).await)
        });
        asked.await.expect("an answer, before patience ends")
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer, RequestError> {
        self.request(&first(), request(method, path, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, RequestError> {
        self.ask(Method::GET, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<Answer, RequestError> {
        self.ask(Method::POST, path, body).await
    }

    pub(crate) fn status(&self, id: &ReplicaId) -> Option<PartitionStatus> {
        self.hvm.observe().into_iter().find(|status| status.id == *id)
    }

    /// Waits until the partition looks like this.
    pub(crate) async fn until(&self, id: &ReplicaId, like: impl Fn(&PartitionStatus) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.status(id).as_ref().is_some_and(&like) {
            assert!(tokio::time::Instant::now() < deadline, "still {:?}", self.status(id));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub(crate) fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<RequestBody> {
    let body: Bytes = body.into();
    let request = Request::builder().method(method).uri(path).header("host", "probe.test");
    request.body(RequestBody::from(body)).expect("a valid request")
}

pub(crate) fn keyed(key: &str, path: &str, body: &'static str) -> Request<RequestBody> {
    let mut request = request(Method::POST, path, body);
    request.headers_mut().insert("idempotency-key", key.parse().expect("a valid header"));
    request
}
