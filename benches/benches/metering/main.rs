//! Whether the processor is given out and billed as promised: guests that never end, under several shares, alone and
//! side by side. Prints a Markdown table. `benches/metering` runs it.
//!
//! It measures no speed. What it compares are clocks: the meter's, the process', and the wall's.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guests_path::Guest;
use http::{Method, Request};
use hvm_runtime::state::{LocalConfig, LocalEngine};
use hvm_runtime::{Hvm, HvmConfig, Module, PartitionSpec, RequestBody, UsedSince};
use hvm_types::{CpuMhz, Grants, Period, ReplicaId};

/// How long each line is measured, after a second in which bursts are used up.
const TIME: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_secs(1);
/// What the host is said to have for each processor, so that a share in MHz is one in thousandths of a processor.
const MHZ_PER_PROCESSOR: u32 = 1_000;

fn main() {
    // `cargo test --benches` asks for nothing to be measured.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let count = u32::try_from(processors.get()).expect("few processors");
    let mut config = HvmConfig::new(folder.path().join("code"));
    config.workers = NonZeroUsize::MIN;
    config.cpu = CpuMhz(count * MHZ_PER_PROCESSOR);
    let state = LocalEngine::start(LocalConfig::new(folder.path().join("state"))).expect("a new state");
    let hvm = Hvm::start(config, Arc::new(state)).expect("this host can run an HVM");
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an executor");
    executor.block_on(async {
        let component = std::fs::read(Guest::Probe.component()).expect("the guests are built");
        let module = hvm.compile(component.into()).await.expect("the guest compiles");
        print("| Guests that never end, on one worker | Their share of a processor | Of what they may | Partitions' part of the process |\n|---|--:|--:|--:|\n");
        for shares in [
            &[Some(50)][..],
            &[Some(100)],
            &[Some(250)],
            &[Some(500)],
            &[Some(900)],
            &[None],
            &[Some(100), Some(200), Some(300)],
            &[Some(250), None],
        ] {
            let line = measure(&hvm, &module, shares).await;
            print(&line);
        }
        hvm.shutdown().await;
    });
}

fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).expect("somebody reads the table");
}

async fn measure(hvm: &Hvm, module: &Module, shares: &[Option<u32>]) -> String {
    let ids: Vec<ReplicaId> =
        (0..shares.len()).map(|index| format!("bench/share/{index}").parse().expect("a valid id")).collect();
    let mut loops = Vec::new();
    for (id, share) in ids.iter().zip(shares) {
        let mut spec = PartitionSpec::new(id.clone(), module.clone());
        // What the guest imports, though its loop uses none of it.
        spec.grants = Grants {
            keyvalue: vec!["default".to_owned()],
            config: true,
            logging: true,
            http: vec!["https://origin.example".to_owned()],
            http_in_commands: false,
        };
        spec.resources.cpu = share.map(CpuMhz);
        spec.resources.deadline = Period(2 * (TIME + WARM_UP));
        hvm.open(spec).await.expect("it opens");
        let (hvm, id) = (hvm.clone(), id.clone());
        loops.push(tokio::spawn(async move {
            let request = Request::builder().method(Method::GET).uri("/loop").body(RequestBody::empty());
            drop(hvm.request(&id, request.expect("a valid request")).await);
        }));
    }
    tokio::time::sleep(WARM_UP).await;
    hvm.drain_usage().await;
    let began = Instant::now();
    tokio::time::sleep(TIME).await;
    let used = hvm.drain_usage().await;
    let line = line(&ids, shares, &used, began.elapsed());
    loops.iter().for_each(tokio::task::JoinHandle::abort);
    for id in &ids {
        hvm.close(id).await.expect("it closes");
    }
    line
}

fn line(ids: &[ReplicaId], shares: &[Option<u32>], used: &UsedSince, time: Duration) -> String {
    let cpu = |id: &ReplicaId| {
        let of = used.partitions.iter().find(|used| used.id == *id);
        of.map_or(0.0, |used| used.meter.cpu.as_secs_f64())
    };
    let joined = |texts: Vec<String>| texts.join(", ");
    let asked = shares.iter().map(|share| share.map_or("no limit".to_owned(), percent_of));
    let got = ids.iter().map(|id| format!("{:.2} %", 100.0 * cpu(id) / time.as_secs_f64()));
    let held = ids.iter().zip(shares).map(|(id, share)| match share {
        Some(share) => {
            let may = f64::from(*share) / f64::from(MHZ_PER_PROCESSOR) * time.as_secs_f64();
            format!("{:.1} %", 100.0 * cpu(id) / may)
        }
        None => "–".to_owned(),
    });
    let in_partitions: f64 = ids.iter().map(cpu).sum();
    format!(
        "| {} | {} | {} | {:.1} % |\n",
        joined(asked.collect()),
        joined(got.collect()),
        joined(held.collect()),
        100.0 * in_partitions / used.process_cpu.as_secs_f64(),
    )
}

fn percent_of(share: u32) -> String {
    format!("{} %", f64::from(share) * 100.0 / f64::from(MHZ_PER_PROCESSOR))
}
