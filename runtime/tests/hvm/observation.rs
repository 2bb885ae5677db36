//! What can be seen from outside: states, what is being done, meters.

use std::time::Duration;

use http::Method;
use hvm_types::{CpuMhz, Meter, ReplicaState, RequestOutcome};

use super::bed::{Bed, first, id, request};

#[tokio::test]
async fn what_a_partition_does_can_be_seen_while_its_guest_hangs() {
    let bed = Bed::with_probe().await;
    let hvm = bed.hvm.clone();
    let looping = tokio::spawn(async move {
        hvm.request(&first(), request(Method::POST, "/loop?secret=hidden", "")).await.map(drop)
    });
    bed.until(&first(), |status| !status.doing.is_empty()).await;
    let status = bed.status(&first()).expect("open");
    assert_eq!(status.doing[0].what, "POST /loop", "the query may hold secrets");
    assert_eq!(status.state, ReplicaState::Ready);
    assert_eq!(status.instances, 1);
    assert!(status.memory.0 > 0);
    looping.abort();
}

async fn usage_of(bed: &Bed) -> Meter {
    let usage = bed.hvm.usage().partitions;
    usage.into_iter().find(|usage| usage.id == first()).expect("open").meter
}

#[tokio::test]
async fn requests_are_counted_by_how_they_ended() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/set?k=a", "12345").await.expect("set");
    bed.get("/kv/get?k=a").await.expect("read");
    bed.get("/kv/get?k=absent").await.expect("answered");
    bed.post("/trap", "").await.expect_err("trapped");
    bed.get("/silent").await.expect_err("no answer");
    let mut bad = request(Method::POST, "/", "");
    bad.headers_mut().insert("idempotency-key", "".parse().expect("a valid header"));
    bed.request(&first(), bad).await.expect_err("refused");
    let meter = usage_of(&bed).await;
    let ended = RequestOutcome::ALL.map(|outcome| meter.requests_of(outcome));
    assert_eq!(ended, [2, 1, 1, 1, 0, 0, 0, 1], "of {:?}", RequestOutcome::ALL);
    assert_eq!(meter.received_bytes, 5);
    assert!(meter.sent_bytes >= 5);
    assert!(meter.state_written_bytes >= 6 && meter.state_read_bytes >= 6, "{meter:?}");
    assert!(meter.wall > Duration::ZERO);
}

/// Waits until the meter's processor time has reached this.
async fn charged(bed: &Bed, at_least: Duration) -> Meter {
    for _ in 0..5_000 {
        let meter = usage_of(bed).await;
        if meter.cpu >= at_least {
            return meter;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("only {:?} was charged", usage_of(bed).await.cpu);
}

#[tokio::test]
async fn processor_time_is_charged_also_where_the_guest_is_stopped() {
    let bed = Bed::with_hasty_probe(Duration::from_millis(300)).await;
    bed.get("/loop").await.expect_err("stopped");
    // At least a third of the time in which it did nothing but loop, however busy this machine is.
    let looped = charged(&bed, Duration::from_millis(10)).await.cpu;
    bed.post("/trap?spin=3000000", "").await.expect_err("trapped");
    charged(&bed, looped + Duration::from_micros(100)).await;
}

#[tokio::test]
async fn partitions_and_host_together_used_what_the_process_used() {
    let bed = Bed::with_probe().await;
    let closed = id("test/closed/0");
    bed.open(&closed, |_| {}).await;
    bed.get("/spin?n=3000000").await.expect("spun");
    bed.request(&closed, request(Method::GET, "/spin?n=3000000", "")).await.expect("spun");
    bed.hvm.close(&closed).await.expect("closed");
    charged(&bed, Duration::from_micros(100)).await;

    let process = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(
            u64::try_from(time.tv_sec).expect("positive"),
            u32::try_from(time.tv_nsec).expect("small"),
        )
    };
    let before = process();
    let usage = bed.hvm.usage();
    let after = process();
    let in_partitions: Duration = usage.partitions.iter().map(|usage| usage.meter.cpu).sum();
    let sum = in_partitions + usage.closed.cpu + usage.host.cpu;
    assert!(usage.closed.cpu > Duration::ZERO, "what the closed partition used is forgotten");
    assert!(before <= sum && sum <= after, "{before:?} <= {sum:?} <= {after:?}");
}

#[tokio::test]
async fn meters_survive_a_restart() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/set?k=a", "1").await.expect("set");
    bed.get("/kv/get?k=a").await.expect("read");
    let bed = bed.restart().await;
    bed.open(&first(), |_| {}).await;
    assert_eq!(usage_of(&bed).await.succeeded, 2);
    bed.get("/kv/get?k=a").await.expect("read");
    assert_eq!(usage_of(&bed).await.succeeded, 3);
}

#[tokio::test]
async fn memory_is_charged_for_as_long_as_it_is_held() {
    let bed = Bed::with_probe().await;
    bed.get("/alloc?mb=30").await.expect("within the limit");
    for _ in 0..5_000 {
        if usage_of(&bed).await.memory_byte_seconds > 1 << 20 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("30 MB held for long cost {:?}", usage_of(&bed).await.memory_byte_seconds);
}

#[tokio::test]
async fn what_was_read_is_charged_also_where_the_guest_is_stopped() {
    let bed = Bed::with_hasty_probe(Duration::from_millis(400)).await;
    bed.post("/kv/set?k=a", "12345").await.expect("set");
    for method in [Method::GET, Method::POST] {
        let before = usage_of(&bed).await.state_read_bytes;
        bed.ask(method, "/kv/get-sleep-get?k=a&ms=60000", "").await.expect_err("too long");
        assert_eq!(usage_of(&bed).await.state_read_bytes - before, 6);
    }
}

#[tokio::test]
async fn what_its_calls_out_send_and_receive_is_charged_to_a_partition() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nthis";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("bound"));
    let asked = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.expect("a request");
        stream.write_all(ANSWER).await.expect("sent");
        read as u64
    });
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.grants.http = vec![origin.clone()]).await;
    let answer = bed.get(&format!("/fetch?url={origin}/")).await.expect("called").text();
    assert_eq!(answer, "200 this");
    let asked = asked.await.expect("asked");
    let meter = usage_of(&bed).await;
    assert_eq!(meter.sent_bytes, asked + answer.len() as u64);
    assert_eq!(meter.received_bytes, ANSWER.len() as u64);
}

#[tokio::test]
async fn what_is_drained_is_given_out_once_and_sums_to_the_process_clock() {
    let bed = Bed::with_probe().await;
    let mut sum = bed.hvm.drain_usage().await;
    assert_eq!(sum.partitions.len(), 1, "a partition is seen when it was opened");
    for round in 0..3 {
        bed.get("/counter-in-memory").await.expect("answered");
        bed.post("/trap?spin=3000000", "").await.expect_err("trapped");
        if round == 1 {
            // What it used until its end comes with the next drain, under its id.
            bed.hvm.close(&first()).await.expect("closed");
            bed.open(&first(), |_| {}).await;
        }
        let used = bed.hvm.drain_usage().await;
        let [partition] = used.partitions.as_slice() else { panic!("{:?}", used.partitions) };
        assert_eq!((partition.meter.succeeded, partition.meter.trapped), (1, 1), "round {round}");
        assert!(partition.meter.cpu > Duration::ZERO, "processor time is settled when it is asked for");
        assert_eq!(partition.meter.cpu + used.host_cpu, used.process_cpu);
        sum.process_cpu += used.process_cpu;
    }
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let clock = Duration::try_from(clock).expect("positive");
    assert!(sum.process_cpu <= clock, "{:?} of {clock:?}", sum.process_cpu);
}

#[tokio::test]
async fn a_guest_beyond_its_share_waits_visibly_and_its_neighbour_and_its_deadline_do_not() {
    let bed = Bed::with(|config| config.cpu = CpuMhz(1_000));
    bed.open(&first(), |_| {}).await;
    let slow = id("test/probe/1");
    bed.open(&slow, |spec| {
        spec.resources.cpu = Some(CpuMhz(1));
        spec.resources.deadline = hvm_types::Period(Duration::from_millis(500));
    })
    .await;
    let looping = tokio::spawn({
        let (hvm, slow) = (bed.hvm.clone(), slow.clone());
        async move { hvm.request(&slow, request(Method::GET, "/loop", "")).await.map(drop) }
    });
    bed.until(&slow, |status| status.throttled == 1).await;
    bed.get("/counter-in-memory").await.expect("the neighbour answers");
    let ended = looping.await.expect("it ends");
    assert!(matches!(ended, Err(hvm_runtime::RequestError::Deadline { .. })), "{ended:?}");
    let used = bed.hvm.drain_usage().await.partitions;
    let used = &used.iter().find(|used| used.id == slow).expect("it was used").meter;
    assert_eq!((used.timed_out, bed.status(&slow).map(|status| status.throttled)), (1, Some(0)));
    assert!(used.throttled > Duration::ZERO, "{used:?}");
}
