//! Whether a partition is charged for what its worker does for it, by a clock that the meters don't use: that of the
//! worker's thread, read before and after. That all rows sum to the process proves nothing here, because the host's row
//! is what the others leave.
//!
//! Only processor time is compared with processor time, so a busy machine changes nothing.

use std::time::Duration;

use http::Method;
use hvm_types::InstancePolicy;
use rustix::time::{ClockId, clock_gettime};

use super::bed::{Bed, first, request};

/// What one worker used, by its thread's clock, and what of it one partition was charged.
struct Seen {
    thread: Duration,
    partition: Duration,
}

impl Seen {
    /// Checks that the partition was charged this part at least, and no more than there was.
    fn check(&self, what: &str, least_percent: u32) {
        let Self { thread, partition } = self;
        assert!(partition <= thread, "{what}: {partition:?} were charged of {thread:?}");
        assert!(
            *partition >= *thread * least_percent / 100,
            "{what}: only {partition:?} of {thread:?} were charged: {:.1} %",
            100.0 * partition.as_secs_f64() / thread.as_secs_f64()
        );
    }
}

async fn thread_cpu(bed: &Bed) -> Duration {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let read = move || async move {
        let clock = clock_gettime(ClockId::ThreadCPUTime);
        let _ = sender.send(Duration::try_from(clock).expect("positive"));
    };
    bed.hvm.workers()[0].spawn(read).await.expect("the worker runs");
    receiver.await.expect("it was read")
}

/// Does something until the worker has used this much.
async fn measure(bed: &Bed, at_least: Duration, mut ask: impl AsyncFnMut()) -> Seen {
    // The first requests of a partition do what comes once.
    ask().await;
    bed.hvm.drain_usage().await;
    let before = thread_cpu(bed).await;
    let mut thread = Duration::ZERO;
    while thread < at_least {
        ask().await;
        thread = thread_cpu(bed).await - before;
    }
    let used = bed.hvm.drain_usage().await;
    // Settling took time after the last reading, which belongs to nobody.
    let thread = thread_cpu(bed).await - before;
    let partition = used.partitions.iter().find(|used| used.id == first()).expect("it was used");
    Seen { thread, partition: partition.meter.cpu }
}

#[tokio::test]
async fn a_guest_that_computes_is_charged_what_its_worker_used() {
    let bed = Bed::with_probe().await;
    let seen = measure(&bed, Duration::from_millis(500), async || {
        bed.get("/spin?n=20000000").await.expect("it ends");
    });
    seen.await.check("computing", 90);
}

#[tokio::test]
async fn instances_and_bodies_are_on_the_bill_of_their_partition() {
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.instance = InstancePolicy::PerRequest).await;
    let seen = measure(&bed, Duration::from_millis(300), async || {
        for _ in 0..20 {
            bed.get("/counter-in-memory").await.expect("answered");
        }
    });
    seen.await.check("an instance for each request", 60);
    let body = vec![b'x'; 4 << 20];
    let seen = measure(&bed, Duration::from_millis(300), async || {
        let echoed = bed.request(&first(), request(Method::POST, "/echo", body.clone())).await;
        assert_eq!(echoed.expect("echoed").status(), 200);
    });
    seen.await.check("bodies", 60);
}

#[tokio::test]
async fn calls_out_are_on_the_bill_of_their_partition() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nthis";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("bound"));
    let serving = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).await.is_ok() {
                drop(stream.write_all(ANSWER).await);
            }
        }
    });
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.grants.http = vec![origin.clone()]).await;
    let path = format!("/fetch?url={origin}/");
    let seen = measure(&bed, Duration::from_millis(300), async || {
        for _ in 0..20 {
            assert_eq!(bed.get(&path).await.expect("called").text(), "200 this");
        }
    });
    seen.await.check("calls out", 60);
    serving.abort();
}
