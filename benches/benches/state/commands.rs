//! Durable commands through the whole HVM: the guest `probe` writes a key of 16 bytes and a value, and answers when that
//! is durable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use guests_path::Guest;
use http::Request;
use hvm_benches::disk;
use hvm_runtime::{Hvm, HvmConfig, PartitionSpec, RequestBody};
use hvm_types::{Grants, ReplicaId};

use crate::commits;
use crate::report::Times;
use crate::{CLIENTS, PARTITIONS};

pub(crate) fn table(each: Duration) -> String {
    let mut table =
        "\n| Commands that write a key, durable | commands | p50 | p99 |\n|---|--:|--:|--:|\n".to_owned();
    for (name, shared) in [("local", false), ("shared, a directory on the same disk", true)] {
        for (count, clients) in PARTITIONS.into_iter().map(|count| (count, CLIENTS)).chain([(1, 1)]) {
            let bed = Bed::new(shared, count);
            let (times, took) = bed.ask_for(clients, each);
            let clients = if clients == 1 { "one client" } else { "1,000 clients" };
            table += &format!("| {name}, {count} partitions, {clients} | {} |\n", times.cells(took));
        }
    }
    table
}

/// A running HVM with open partitions.
struct Bed {
    hvm: Hvm,
    ids: Arc<[ReplicaId]>,
    executor: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Bed {
    fn new(shared: bool, count: u32) -> Self {
        let folder = disk::folder();
        let engine = commits::engine(folder.path(), shared);
        let hvm =
            Hvm::start(HvmConfig::new(folder.path().join("code")), engine).expect("this host can run one");
        let executor =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
        let ids: Arc<[ReplicaId]> = (0..count).map(commits::id).collect();
        executor.block_on(async {
            let component = std::fs::read(Guest::Probe.component()).expect("the guests are built");
            let module = hvm.compile(component.into()).await.expect("the guest compiles");
            let open = async |id: &ReplicaId| {
                let grants = Grants {
                    keyvalue: vec!["default".to_owned()],
                    config: true,
                    logging: true,
                    http: vec!["https://origin.example".to_owned()],
                    http_in_commands: false,
                };
                let mut spec = PartitionSpec { grants, ..PartitionSpec::new(id.clone(), module.clone()) };
                // One partition may have all clients.
                spec.resources.mailbox = 2_000;
                hvm.open(spec).await.expect("the partition opens");
            };
            for some in ids.chunks(commits::OPENED_AT_ONCE) {
                join_all(some.iter().map(&open)).await;
            }
        });
        Self { hvm, ids, executor, _folder: folder }
    }

    /// Clients are on the workers, as ingresses are. Each has one command under way and goes round the partitions.
    fn ask_for(&self, clients: usize, each: Duration) -> (Times, Duration) {
        let workers = self.hvm.workers().len().min(clients);
        let began = Instant::now();
        let (sender, receiver) = std::sync::mpsc::sync_channel(workers);
        for worker in 0..workers {
            let (hvm, ids, sender) = (self.hvm.clone(), Arc::clone(&self.ids), sender.clone());
            let task = move || async move {
                let client = |client: usize| ask(&hvm, &ids, client, clients, began, each);
                let times = join_all((worker..clients).step_by(workers).map(client)).await;
                drop(sender.send(Times::merge(times)));
            };
            self.executor.block_on(self.hvm.workers()[worker].spawn(task)).expect("the HVM runs");
        }
        drop(sender);
        let times = Times::merge(receiver);
        (times, began.elapsed())
    }
}

async fn ask(
    hvm: &Hvm,
    ids: &[ReplicaId],
    client: usize,
    clients: usize,
    began: Instant,
    each: Duration,
) -> Times {
    let mut times = Times::default();
    let mut next = client;
    while began.elapsed() < each {
        let request =
            Request::post(format!("http://bench.example/kv/set?k={}&v=value", disk::key(next as u64)));
        let request = request.body(RequestBody::empty()).expect("a request");
        let asked = Instant::now();
        let response = hvm.request(&ids[next % ids.len()], request).await.expect("an answer");
        assert!(response.status().is_success(), "the probe answers {}", response.status());
        response.into_body().collect().await.expect("a whole answer");
        times.add(asked.elapsed());
        next += clients;
    }
    times
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.executor.block_on(self.hvm.clone().shutdown());
    }
}
