//! The neighbour: a partition that is asked at a steady rate, and how long each answer took.

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

/// What the neighbour is asked, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Next to nothing, every two milliseconds: all that is measured is the way.
    Tiny,
    /// Some 100 µs of work, on average every millisecond, at random (Poisson): about an eighth of the core.
    Working,
}

impl Load {
    pub(crate) const ALL: [Self; 2] = [Self::Tiny, Self::Working];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tiny => "asked next to nothing, every 2 ms",
            Self::Working => "asked for 100 µs of work, at random, on average every 1 ms",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Tiny => "/",
            Self::Working => "/spin?n=30000",
        }
    }

    /// Time to the next request.
    fn pause(self, random: &mut Xorshift) -> Duration {
        match self {
            Self::Tiny => Duration::from_millis(2),
            Self::Working => Duration::from_millis(1).mul_f64(-random.fraction().ln()),
        }
    }
}

/// Marsaglia's generator, so that each measurement has the same arrivals.
struct Xorshift(u64);

impl Xorshift {
    /// Between 0 and 1, neither of them.
    fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let high = u32::try_from(self.0 >> 32).unwrap_or(u32::MAX);
        (f64::from(high) + 0.5) / (f64::from(u32::MAX) + 1.0)
    }
}

/// Lines go nowhere: what is measured is the HVM, not a disk.
struct Nowhere;

impl LogSink for Nowhere {
    fn write(&self, _id: &ReplicaId, _line: LogLine) {}
}

/// An HVM with one worker, a neighbour and room for somebody else.
pub(crate) struct Bed {
    pub(crate) hvm: Hvm,
    /// Where the offender's requests come from.
    executor: Runtime,
    /// Where the neighbour's come from: at the clients' common thread they would wait for a flood of others, which says
    /// nothing of the HVM.
    asker: Runtime,
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
        let bed = Self { hvm, executor: executor(|| ()), asker: executor(go_first), _folder: folder };
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
    pub(crate) fn measure(&self, load: Load, each: Duration) -> Times {
        go_first();
        let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
        let mut asked = Vec::new();
        let began = Instant::now();
        let mut due = began;
        while began.elapsed() < each {
            due += load.pause(&mut random);
            // The executor's timers are a millisecond late, the kernel's are not.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let hvm = self.hvm.clone();
            let sent = Instant::now();
            asked.push(self.asker.spawn(async move { ask(&hvm, load, sent).await }));
        }
        self.asker.block_on(async {
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

/// One thread that asks.
fn executor(on_start: fn()) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().on_thread_start(on_start).build().expect("an executor")
}

/// Puts this thread before those that flood, which share its core. Without the right to do so it waits for them.
fn go_first() {
    let _refused = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -20);
}

async fn ask(hvm: &Hvm, load: Load, sent: Instant) -> Duration {
    let id: ReplicaId = "bench/neighbour/0".parse().expect("a valid id");
    let request = Request::get(format!("http://bench.example{}", load.path()));
    let request = request.body(RequestBody::empty()).expect("a request");
    let response = hvm.request(&id, request).await.expect("the neighbour answers");
    response.into_body().collect().await.expect("a whole answer");
    sent.elapsed()
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.executor.block_on(self.hvm.clone().shutdown());
    }
}
