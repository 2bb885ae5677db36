//! What the tests of state engines share: starting an engine, making records, a seeded source of numbers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hvm_runtime::state::{
    CommitRecord, Idempotency, IdempotencyWindow, LocalConfig, LocalEngine, PartitionState, Retention,
    SharedConfig, SharedEngine, SharedStore, StateEngine, StoredResponse, WriteSet,
};
use hvm_types::{ByteSize, Digest, Epoch, Meter, ReplicaId};

/// State that survives its engine.
pub(crate) trait Bed {
    /// Starts an engine on the state. The one before was dropped.
    fn start(&self, window: IdempotencyWindow) -> Arc<dyn StateEngine>;
}

/// The local engine in a directory of its own.
pub(crate) struct LocalBed(tempfile::TempDir);

impl LocalBed {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory for the test"))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("state")
    }

    pub(crate) fn engine(&self) -> LocalEngine {
        start_local(&self.path())
    }
}

impl Bed for LocalBed {
    fn start(&self, window: IdempotencyWindow) -> Arc<dyn StateEngine> {
        let config = LocalConfig { window, ..config(&self.path()) };
        Arc::new(LocalEngine::start(config).expect("the engine starts"))
    }
}

/// The shared engine of one host, with its store in a directory.
pub(crate) struct SharedBed(tempfile::TempDir);

impl SharedBed {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory for the test"))
    }

    /// The directory that all hosts see.
    pub(crate) fn store_path(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// The configuration of a host with a directory of its own.
    pub(crate) fn config(&self, host: &str) -> SharedConfig {
        let store = SharedStore::directory(&self.store_path()).expect("a store");
        SharedConfig::new(host.parse().expect("a valid host"), store, self.0.path().join(host))
    }

    pub(crate) fn engine(&self, host: &str) -> SharedEngine {
        SharedEngine::start(self.config(host)).expect("the engine starts")
    }
}

impl Bed for SharedBed {
    fn start(&self, window: IdempotencyWindow) -> Arc<dyn StateEngine> {
        let mut config = self.config("host-1");
        config.local.window = window;
        // So that the suite meets checkpoints and deletions too.
        config.upkeep = ByteSize(4000);
        Arc::new(SharedEngine::start(config).expect("the engine starts"))
    }
}

pub(crate) fn config(path: &Path) -> LocalConfig {
    LocalConfig::new(path)
}

pub(crate) fn start_local(path: &Path) -> LocalEngine {
    LocalEngine::start(config(path)).expect("the engine starts")
}

pub(crate) fn replica(index: u32) -> ReplicaId {
    format!("ledger/accounts/{index}").parse().expect("a valid id")
}

pub(crate) fn open(engine: &dyn StateEngine, index: u32, epoch: u64) -> Arc<dyn PartitionState> {
    engine.open(&replica(index), Epoch(epoch)).expect("the partition opens")
}

/// A record that sets keys of the bucket `default`.
pub(crate) fn record(writes: &[(&str, &str)]) -> CommitRecord {
    let mut set = WriteSet::default();
    for (key, value) in writes {
        set.put("default", key, Bytes::copy_from_slice(value.as_bytes()));
    }
    CommitRecord {
        writes: set,
        idempotency: None,
        exchange: None,
        schema: None,
        meter: Meter { succeeded: 1, ..Meter::default() },
        quota: ByteSize::mib(1024),
        retention: Retention::default(),
        unix_millis: 1_800_000_000_000,
    }
}

/// The same with an idempotency key, whose answer's body is `body`.
pub(crate) fn keyed(key: &str, body: &str, writes: &[(&str, &str)]) -> CommitRecord {
    let response = StoredResponse {
        status: 201,
        headers: vec![("content-type".to_owned(), Bytes::from_static(b"text/plain"))],
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    let idempotency =
        Idempotency { key: key.parse().expect("a valid key"), request: Digest::of(key.as_bytes()), response };
    CommitRecord { idempotency: Some(idempotency), ..record(writes) }
}

pub(crate) fn get(partition: &dyn PartitionState, key: &str) -> Option<String> {
    let value = partition.snapshot().expect("a snapshot").get("default", key).expect("a read");
    value.map(|value| String::from_utf8(value.to_vec()).expect("the tests store text"))
}

/// Numbers that depend on the seed alone (SplitMix64).
pub(crate) struct Numbers(u64);

impl Numbers {
    /// A seed that is printed, so that a failure can be repeated with `STATE_SEED`.
    pub(crate) fn printed() -> Self {
        let given = std::env::var("STATE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) ^ 0x5eed);
        eprintln!("STATE_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("a small limit");
        usize::try_from(self.next() % limit).expect("below a small limit")
    }
}
