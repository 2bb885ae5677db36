//! Guests that take from their host what is not memory of their own: header fields, bodies, handles, giant calls. All
//! of it is in their partition's limit, or has a bound of its own.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hvm_runtime::{RequestBody, RequestError, Trap};
use hvm_types::{ByteSize, Period};

use super::bed::{Answer, Bed, first, request};

/// Memory of the partitions here.
const LIMIT_MB: u32 = 16;
const LIMIT: ByteSize = ByteSize::mib(LIMIT_MB as u64);
/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Set in the process that measures itself.
const MEASURED: &str = "HVM_TEST_MEASURED";

async fn small() -> Bed {
    let bed = Bed::new();
    bed.open(&first(), |spec| {
        spec.resources.memory = LIMIT_MB;
        spec.resources.deadline = Period(Duration::from_secs(5));
    })
    .await;
    bed
}

fn memory(bed: &Bed) -> ByteSize {
    bed.status(&first()).expect("open").memory
}

async fn serves(bed: &Bed) {
    assert_eq!(bed.get("/").await.expect("queries go on").text(), "probe\n");
    assert_eq!(bed.post("/echo", "on").await.expect("commands go on").text(), "on");
}

/// Hoards of every kind, as a query and as a command; the hoarder is stopped, or is told that there is no more.
async fn hoard(bed: &Bed) {
    // A body has three handles.
    for (what, n) in [("fields", 900), ("requests", 900), ("bodies", 300)] {
        let path = format!("/hoard?what={what}&n={n}");
        for method in [Method::GET, Method::POST] {
            match bed.ask(method.clone(), &path, "").await {
                Err(RequestError::Trapped { trap }) => {
                    assert_eq!(trap, Trap::Memory { limit: LIMIT }, "{what}")
                }
                // It waits for readers of its bodies, which there are none of: there is no room for its answer.
                Err(RequestError::Deadline { .. }) => assert_eq!(what, "bodies"),
                Ok(Answer { body: Err(RequestError::Deadline { .. }), .. }) => assert_eq!(what, "bodies"),
                other => panic!("{method} {what}: {other:?}"),
            }
            assert!(memory(bed) <= LIMIT, "{what}: {}", memory(bed));
        }
    }
}

#[tokio::test]
async fn what_a_guest_makes_its_host_keep_is_in_its_limit() {
    let bed = small().await;
    hoard(&bed).await;
    serves(&bed).await;
    let answer = bed.get("/hoard?what=fields&n=50").await.expect("within the limit");
    assert_eq!(answer.text(), "50");
    let leaked = bed.get("/hoard?what=pollables&n=2000").await;
    assert!(matches!(leaked, Err(RequestError::Trapped { trap: Trap::Resources { .. } })), "{leaked:?}");
    serves(&bed).await;
}

/// A figure of this process in bytes, from proc(5).
fn proc_status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel tells it");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kib << 10
}

/// The process that hoards is one of its own: others would be measured as well.
#[tokio::test]
async fn a_process_grows_by_no_more_than_the_limit_and_one_allocation() {
    if std::env::var_os(MEASURED).is_none() {
        let name = "greed::a_process_grows_by_no_more_than_the_limit_and_one_allocation";
        let program = std::env::current_exe().expect("this test");
        let run = Command::new(program).args([name, "--exact", "--nocapture"]).env(MEASURED, "1").output();
        let run = run.expect("it starts");
        let told = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{told}");
        return;
    }
    let bed = small().await;
    serves(&bed).await;
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak is measured from here");
    let before = proc_status("VmRSS:");
    hoard(&bed).await;
    let grown = proc_status("VmHWM:").saturating_sub(before);
    // One call's arguments, and what the allocator keeps for itself.
    let allowed = LIMIT.0 + ByteSize::mib(12).0;
    assert!(grown <= allowed, "{} instead of {}", ByteSize(grown), ByteSize(allowed));
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_in_the_limit_until_it_is_dropped() {
    let bed = small().await;
    bed.get("/").await.expect("warm");
    let before = memory(&bed);
    let unread = bed.hvm.request(&first(), request(Method::GET, "/big?mb=1", "")).await.expect("a head");
    bed.until(&first(), |status| status.doing.is_empty()).await;
    assert!(memory(&bed).0 >= before.0 + 900_000, "{before} and then {}", memory(&bed));
    drop(unread);
    bed.until(&first(), |status| status.memory.0 < before.0 + 300_000).await;

    // Several that are longer than what waits for readers: they wait, and others are served.
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(bed.hvm.request(&first(), request(Method::GET, "/big?mb=8", "")).await.expect("a head"));
    }
    assert_eq!(bed.post("/echo", "on").await.expect("commands go on").text(), "on");
    assert!(memory(&bed) <= LIMIT, "{}", memory(&bed));
    for response in unread {
        assert_eq!(response.into_body().collect().await.expect("whole").len(), 8_000_000);
    }
}

#[tokio::test]
async fn a_commands_answer_is_in_the_limit_until_it_is_dropped() {
    let bed = small().await;
    let before = {
        bed.post("/echo", "x").await.expect("warm");
        memory(&bed)
    };
    let response = bed.hvm.request(&first(), request(Method::POST, "/big?mb=4", "")).await.expect("answered");
    assert!(memory(&bed).0 >= before.0 + 4_000_000, "{before} and then {}", memory(&bed));
    drop(response);
    bed.until(&first(), |status| status.memory.0 < before.0 + 1_000_000).await;
}

#[tokio::test]
async fn bodies_that_wait_are_in_the_limit() {
    let bed = Bed::new();
    bed.open(&first(), |spec| {
        spec.resources.memory = LIMIT_MB;
        spec.resources.request_body = ByteSize::mib(3);
    })
    .await;
    let running = bed.post("/sleep?ms=300", "");
    let body = Bytes::from(vec![b'x'; 3 << 20]);
    let waits = async {
        bed.until(&first(), |status| !status.doing.is_empty()).await;
        let before = memory(&bed);
        let measured = async {
            bed.until(&first(), |status| status.memory.0 >= before.0 + (3 << 20)).await;
        };
        tokio::join!(bed.post("/echo", body.clone()), measured).0
    };
    let (_, answer) = tokio::join!(running, waits);
    assert_eq!(answer.expect("answered").body.expect("whole"), body);
}

#[tokio::test]
async fn a_giant_call_is_refused_and_its_host_goes_on() {
    let bed = small().await;
    assert_eq!(bed.get("/random-bytes?n=100000").await.expect("a fair amount").text(), "100000");
    assert_eq!(bed.get("/poll?n=10").await.expect("polled").text(), "10");
    for path in [
        "/random-tera",
        "/random-bytes?n=10000000",
        "/poll?n=50000",
        // `wasi:http` 0.2 has no error that says so.
        "/header?name=x-long&n=100000",
    ] {
        let error = bed.get(path).await.expect_err("too much");
        assert!(matches!(error, RequestError::Trapped { .. }), "{path}: {error}");
        serves(&bed).await;
    }
    for (path, told) in [
        ("/header?name=transfer-encoding&value=chunked", "Forbidden"),
        ("/header?name=connection&value=close", "Forbidden"),
        ("/header?name=host&value=evil", "Forbidden"),
        ("/header?name=content-length&value=-1", "InvalidSyntax"),
        ("/header?name=x&value=a%0d%0ab", "InvalidSyntax"),
        ("/header?name=a%20b&value=c", "InvalidSyntax"),
        ("/header?name=x&value=y", "taken"),
        ("/long-request?n=100000", "method false path false authority false"),
        ("/long-request?n=20", "method true path true authority true"),
    ] {
        let answer = bed.get(path).await.expect("the guest is told").text();
        assert!(answer.contains(told), "{path}: {answer}");
    }
    serves(&bed).await;
}

#[tokio::test]
async fn a_sleep_of_ages_ends_at_the_deadline() {
    let bed = Bed::with_hasty_probe(Duration::from_millis(300)).await;
    for method in [Method::GET, Method::POST] {
        let error = bed.ask(method, "/sleep-for-ever", "").await.expect_err("it never wakes");
        assert!(matches!(error, RequestError::Deadline { .. }), "{error}");
    }
    serves(&bed).await;
}

#[tokio::test]
async fn an_answer_that_http_does_not_have_is_an_error_and_no_success() {
    let bed = small().await;
    for path in ["/status?code=100", "/status?code=103", "/promise?bytes=5"] {
        for method in [Method::GET, Method::POST] {
            let error = bed.ask(method, path, "").await.expect_err("no valid answer");
            assert!(matches!(error, RequestError::ResponseInvalid { .. }), "{path}: {error}");
            assert_eq!(error.status().as_u16(), 500);
        }
    }
    assert_eq!(bed.ask(Method::HEAD, "/promise?bytes=5", "").await.expect("the body's length").status(), 200);
    assert_eq!(bed.get("/promise?bytes=0").await.expect("nothing is promised").status(), 200);
    let usage = bed.hvm.usage().partitions;
    let meter = &usage[0].meter;
    assert_eq!((meter.errored, meter.succeeded), (6, 2));
}

#[tokio::test]
async fn a_gibibyte_passes_through_a_guest_in_constant_memory() {
    const PIECE: usize = 64 << 10;
    const PIECES: u64 = 1 << 14;
    let bed = Bed::new();
    bed.open(&first(), |spec| {
        spec.resources.memory = LIMIT_MB;
        spec.resources.request_body = ByteSize::mib(2048);
        spec.resources.deadline = Period(PATIENCE);
    })
    .await;
    let piece = Bytes::from(vec![b'p'; PIECE]);
    let trailers =
        HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("right"))]);
    let frames = (0..PIECES).map(move |_| Frame::data(piece.clone())).chain([Frame::trailers(trailers)]);
    let body = RequestBody::new(StreamBody::new(futures::stream::iter(frames.map(Ok::<_, std::io::Error>))));
    let request = Request::get("/pipe").header("host", "probe.test").body(body).expect("a request");
    let passing = async {
        let mut body = bed.hvm.request(&first(), request).await.expect("a head").into_body();
        let (mut read, mut most, mut sum) = (0, ByteSize(0), None);
        while let Some(frame) = body.frame().await {
            match frame.expect("whole").into_data() {
                Ok(data) => {
                    read += data.len() as u64;
                    most = most.max(memory(&bed));
                }
                Err(frame) => sum = frame.into_trailers().ok(),
            }
        }
        (read, most, sum)
    };
    let (read, most, sum) = tokio::time::timeout(PATIENCE, passing).await.expect("it ends");
    assert_eq!(read, PIECES * PIECE as u64);
    assert_eq!(sum.expect("trailers")["x-sum"], "right");
    assert!(most <= ByteSize::mib(6), "{most}");
}
