//! The neighbour: a partition that answers a request every two milliseconds, and how long each took.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guests_path::Guest;
use http::Request;
use hvm_runtime::state::{LocalConfig, LocalEngine};
use hvm_runtime::{Hvm, HvmConfig, LogLine, LogSink, PartitionSpec, RequestBody};
use hvm_types::{Grants, ReplicaId};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::misbehaviour::Misbehaviour;

/// Time between two requests to the neighbour.
const PERIOD: Duration = Duration::from_millis(2);

/// Lines go nowhere: what is measured is the HVM, not a disk.
struct Nowhere;

impl LogSink for Nowhere {
    fn write(&self, _id: &ReplicaId, _line: LogLine) {}
}

/// An HVM with one worker, a neighbour and room for somebody else.
pub(crate) struct Bed {
    pub(crate) hvm: Hvm,
    /// Where requests come from.
    executor: Runtime,
    _folder: tempfile::TempDir,
}

/// Times to answer.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, mut more: Self) {
        self.0.append(&mut more.0);
        self.0.sort_unstable();
    }

    /// The time within which this share of the requests was answered.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a number that is far below 2^52"
    )]
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

impl Bed {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let engine = LocalEngine::start(LocalConfig::new(folder.path().join("state"))).expect("a new state");
        let mut config = HvmConfig::new(folder.path().join("code"));
        config.workers = NonZeroUsize::MIN;
        config.log = Arc::new(Nowhere);
        let hvm = Hvm::start(config, Arc::new(engine)).expect("this host can run an HVM");
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("an executor");
        let bed = Self { hvm, executor, _folder: folder };
        bed.open("bench/neighbour/0", Vec::new());
        bed
    }

    /// Opens a probe that may call out to these origins.
    pub(crate) fn open(&self, id: &str, mut http: Vec<String>) -> ReplicaId {
        // The probe imports it, so something must be granted.
        http.push("https://origin.example".to_owned());
        let id: ReplicaId = id.parse().expect("a valid id");
        let component = std::fs::read(Guest::Probe.component()).expect("the guests are built");
        self.executor.block_on(async {
            let module = self.hvm.compile(component.into()).await.expect("the guest compiles");
            let mut spec = PartitionSpec::new(id.clone(), module);
            spec.grants = Grants {
                keyvalue: vec!["default".to_owned()],
                config: true,
                logging: true,
                http,
                http_in_commands: true,
            };
            self.hvm.open(spec).await.expect("the partition opens");
        });
        id
    }

    /// Asks the neighbour for so long.
    pub(crate) fn measure(&self, each: Duration) -> Times {
        self.executor.block_on(async {
            let began = tokio::time::Instant::now();
            let mut asked = Vec::new();
            let mut due = began;
            while began.elapsed() < each {
                due += PERIOD;
                tokio::time::sleep_until(due).await;
                let hvm = self.hvm.clone();
                // Timers are a millisecond late: what they are is not the neighbour's.
                let sent = Instant::now();
                asked.push(tokio::spawn(async move { ask(&hvm, sent).await }));
            }
            let mut times = Vec::new();
            for answer in asked {
                times.push(answer.await.expect("no panic"));
            }
            Times(times)
        })
    }

    pub(crate) fn start(&self, misbehaviour: Misbehaviour) -> Vec<JoinHandle<()>> {
        let running = misbehaviour.start(self, self.executor.handle());
        // Until it is in full swing.
        self.executor.block_on(async { tokio::time::sleep(Duration::from_millis(300)).await });
        running
    }

    pub(crate) fn stop(&self, running: Vec<JoinHandle<()>>) {
        for task in running {
            task.abort();
        }
        let id: ReplicaId = Misbehaviour::PARTITION.parse().expect("a valid id");
        self.executor.block_on(self.hvm.close(&id)).expect("it closes");
    }
}

async fn ask(hvm: &Hvm, sent: Instant) -> Duration {
    let id: ReplicaId = "bench/neighbour/0".parse().expect("a valid id");
    let request = Request::get("http://bench.example/").body(RequestBody::empty()).expect("a request");
    let response = hvm.request(&id, request).await.expect("the neighbour answers");
    response.into_body().collect().await.expect("a whole answer");
    sent.elapsed()
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.executor.block_on(self.hvm.clone().shutdown());
    }
}
