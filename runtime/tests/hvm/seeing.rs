//! Seeing inside: where each request is while it goes on, where a guest was when it was stopped, and one span for each
//! request.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use hvm_runtime::{Doing, LogSource, Phase, RequestBody};
use hvm_types::{Period, ReplicaId};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use super::bed::{Bed, first, id, request};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Sends a request and does not wait for its answer.
fn send(bed: &Bed, id: &ReplicaId, request: Request<RequestBody>) -> tokio::task::JoinHandle<()> {
    let (hvm, id) = (bed.hvm.clone(), id.clone());
    tokio::spawn(async move { drop(hvm.request(&id, request).await) })
}

/// Waits until a request of the partition is in a phase like this.
async fn doing(bed: &Bed, id: &ReplicaId, like: impl Fn(&Doing) -> bool) -> Doing {
    bed.until(id, |status| status.doing.iter().any(&like)).await;
    let status = bed.status(id).expect("open");
    status.doing.into_iter().find(|doing| like(doing)).expect("it stays like this")
}

#[tokio::test]
async fn a_hanging_guest_and_those_who_wait_for_it_can_be_told_apart() {
    let bed = Bed::with_probe().await;
    let mut traced = request(Method::POST, "/loop?secret=hidden", "");
    traced.headers_mut().insert("traceparent", TRACEPARENT.parse().expect("a header"));
    let looping = send(&bed, &first(), traced);
    let in_guest = doing(&bed, &first(), |doing| doing.phase == Phase::Guest).await;
    assert_eq!((in_guest.number, in_guest.what.as_str()), (1, "POST /loop"));
    assert_eq!(in_guest.trace.as_deref(), Some(TRACE));
    let waiting = send(&bed, &first(), request(Method::POST, "/kv/incr?k=n", ""));
    let in_turn = doing(&bed, &first(), |doing| doing.phase == Phase::Turn).await;
    assert_eq!((in_turn.number, in_turn.what.as_str(), in_turn.trace), (2, "POST /kv/incr", None));
    let later = |doing: &Doing| doing.number == 1 && doing.in_phase > Duration::from_millis(20);
    assert!(doing(&bed, &first(), later).await.since >= in_guest.since);
    looping.abort();
    waiting.abort();
}

#[tokio::test]
async fn a_request_whose_body_does_not_come_is_seen_to_read_it() {
    let bed = Bed::with_probe().await;
    let (sender, body) = tokio::io::duplex(16);
    let body = http_body_util::StreamBody::new(futures::stream::unfold(body, |mut body| async move {
        use tokio::io::AsyncReadExt as _;
        let byte = body.read_u8().await.ok()?;
        Some((Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(vec![byte]))), body))
    }));
    let slow = Request::builder().method(Method::POST).uri("/echo").body(RequestBody::new(body));
    let slow = send(&bed, &first(), slow.expect("a valid request"));
    doing(&bed, &first(), |doing| doing.phase == Phase::Body).await;
    drop(sender);
    slow.await.expect("answered when its body had ended");
}

#[tokio::test]
async fn a_request_without_a_place_for_its_instance_is_seen_to_wait_for_one() {
    let bed = Bed::with(|config| config.max_instances = 1);
    let other = id("test/other/0");
    bed.open(&other, |_| {}).await;
    bed.open(&first(), |_| {}).await;
    let looping = send(&bed, &first(), request(Method::GET, "/loop", ""));
    doing(&bed, &first(), |doing| doing.phase == Phase::Guest).await;
    let waiting = send(&bed, &other, request(Method::GET, "/", ""));
    doing(&bed, &other, |doing| doing.phase == Phase::Place).await;
    looping.abort();
    waiting.await.expect("it gets the place that the other leaves");
}

#[tokio::test]
async fn a_guest_that_waits_for_another_server_is_seen_to_call_it_and_passes_the_trace_on() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("bound"));
    let bed = Bed::new();
    bed.open(&first(), |spec| spec.grants.http = vec![origin.clone()]).await;
    let mut traced = request(Method::GET, &format!("/fetch?url={origin}/path?secret"), "");
    traced.headers_mut().insert("traceparent", TRACEPARENT.parse().expect("a header"));
    traced.headers_mut().insert("tracestate", "vendor=1".parse().expect("a header"));
    let calling = send(&bed, &first(), traced);
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut asked = String::new();
    while !asked.ends_with("\r\n\r\n") {
        use tokio::io::AsyncReadExt as _;
        asked.push(char::from(stream.read_u8().await.expect("a request")));
    }
    let asked = asked.to_ascii_lowercase();
    assert!(asked.contains(&format!("traceparent: {TRACEPARENT}\r\n")), "{asked}");
    assert!(asked.contains("tracestate: vendor=1\r\n"), "{asked}");
    doing(&bed, &first(), |doing| doing.phase == Phase::Call { origin: origin.clone() }).await;
    drop(stream);
    calling.await.expect("it is told that the connection broke");
}

#[tokio::test]
async fn a_malformed_trace_reaches_no_guest() {
    let bed = Bed::with_probe().await;
    for (sent, echoed) in [(TRACEPARENT, Some(TRACEPARENT)), ("00-1-2-3", None)] {
        let mut traced = request(Method::GET, "/echo", "");
        traced.headers_mut().insert("traceparent", sent.parse().expect("a header"));
        let answer = bed.request(&first(), traced).await.expect("answered");
        assert_eq!(answer.header("echo-header-traceparent"), echoed);
    }
}

#[tokio::test]
async fn a_trap_is_logged_with_its_request_and_the_names_of_the_functions_it_happened_in() {
    let bed = Bed::with_probe().await;
    bed.get("/").await.expect("the first request");
    bed.get("/trap?kind=divide").await.expect_err("trapped");
    let lines: Vec<_> = bed.lines.all().into_iter().filter(|line| line.source == LogSource::Hvm).collect();
    let text = |line: usize| lines.get(line).map_or("", |line| line.text.as_str());
    let at = lines.iter().position(|line| line.text.contains("stopped")).expect("a line about the trap");
    assert!(text(at).starts_with("request 2 (GET /trap) stopped at: "), "{lines:?}");
    assert!(text(at).contains("divide by zero"), "{}", text(at));
    let frames: Vec<_> = lines[at + 1..].iter().take_while(|line| line.text.contains("!")).collect();
    assert!(!frames.is_empty() && frames.len() <= 16, "{lines:?}");
    assert!(frames[0].text.starts_with("request 2 (GET /trap)"), "{}", frames[0].text);
    assert!(
        frames.iter().any(|line| line.text.contains("probe::fault::trap")),
        "no name of a function: {frames:?}"
    );
    assert!(text(at + 1 + frames.len()).starts_with("request 2 (GET /trap) failed: "), "{lines:?}");
}

/// Fields of the spans that have ended.
#[derive(Clone, Default)]
struct Ended(Arc<Mutex<Vec<BTreeMap<String, String>>>>);

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Ended {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        context.span(id).expect("it is new").extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).expect("it is open");
        values.record(span.extensions_mut().get_mut::<Fields>().expect("inserted when it was new"));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).expect("it closes now");
        if span.metadata().target() == "hvm::request" {
            let fields = span.extensions_mut().remove::<Fields>().expect("inserted when it was new");
            self.0.lock().expect("not poisoned").push(fields.0);
        }
    }
}

#[tokio::test]
async fn each_request_is_a_span_without_secrets_where_somebody_listens() {
    let ended = Ended::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(ended.clone()))
        .expect("no other test of this process listens");
    let bed = Bed::with_probe().await;
    let mut traced = request(Method::POST, "/kv/set?k=secret", "hidden");
    traced.headers_mut().insert("traceparent", TRACEPARENT.parse().expect("a header"));
    traced.headers_mut().insert("authorization", "hidden".parse().expect("a header"));
    bed.request(&first(), traced).await.expect("answered");
    bed.open(&id("test/hasty/0"), |spec| spec.resources.deadline = Period(Duration::from_millis(50))).await;
    bed.request(&id("test/hasty/0"), request(Method::GET, "/loop", "")).await.expect_err("too long");
    bed.hvm.clone().shutdown().await;

    let spans = ended.0.lock().expect("not poisoned").clone();
    let of = |group: &str| spans.iter().find(|span| span["group"] == group).expect("a span");
    let (probe, hasty) = (of("probe"), of("hasty"));
    for (field, value) in [
        ("deployment", "test"),
        ("partition", "0"),
        ("number", "1"),
        ("method", "POST"),
        ("outcome", "Succeeded"),
        ("trace_id", TRACE),
        ("parent_id", "00f067aa0ba902b7"),
    ] {
        assert_eq!(probe[field], value, "{field}");
    }
    let micros = |span: &BTreeMap<String, String>, field: &str| span[field].parse::<u64>().expect("a number");
    assert!(micros(probe, "guest_us") > 0 && micros(probe, "commit_us") > 0, "{probe:?}");
    assert!(micros(hasty, "guest_us") >= 40_000 && micros(hasty, "commit_us") == 0, "{hasty:?}");
    assert_eq!(hasty["status"], "504");
    assert!(
        !format!("{spans:?}").contains("secret") && !format!("{spans:?}").contains("hidden"),
        "{spans:?}"
    );
}
