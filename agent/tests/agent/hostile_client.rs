//! Clients that mean harm: requests with two readings, on this host and through another one, and floods of frames.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api::doing;
use crate::support::{Host, Image, Keys, PATIENCE, Scheduler, assignments, document, eventually};

/// How an HTTP/2 connection begins (RFC 9113, 3.4), with empty settings.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `GET / http`, by the static table of HPACK.
const GET: &[u8] = &[0x82, 0x84, 0x86];

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Host `a` with an ingress and no partitions, host `b` with all of them.
pub(crate) async fn two_hosts(keys: &Keys) -> (Scheduler, Host, Host) {
    let scheduler = Scheduler::start().await;
    let image = Image::probe("1.0.0", keys);
    scheduler.put_image(&image);
    let a = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    let b = Host::started("b", &scheduler.url(), Some(keys.policy())).await;
    let hosts = [a.entry(), b.entry()];
    for (host, indexes) in [("a", vec![]), ("b", vec![0])] {
        let mut desired = document(1, assignments(indexes, 1, image.manifest()), 1, &hosts);
        desired.routing.routes[0].route.r#match.prefix = "/".to_owned();
        desired.routing.groups[0]
            .owners
            .iter_mut()
            .for_each(|owner| owner.host = "b".parse().expect("an id"));
        scheduler.put_document(host, desired);
    }
    scheduler.reported("b", |reported| reported.all_ready(1, 1)).await;
    eventually("host a knows the routes", || async { a.client().get("/echo?k=a").await.status == 200 }).await;
    (scheduler, a, b)
}

/// What an ingress answers to these bytes, until it closes the connection.
pub(crate) async fn raw(host: &Host, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(host.agent().ingress()).await.expect("connected");
    // It may close the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.unwrap_or_else(|_| panic!("still open after {:?}", bytes.escape_ascii().to_string()));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_with_two_readings_is_refused_and_hides_no_other() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    let hidden = "GET /echo?k=hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = hidden.len();
    // These have one end, and nothing but a wrong field: hyper refuses them, and says no more than the status.
    let of_a_field = ["a bare carriage return", "a NUL", "a name with a space", "a name of nothing"];
    for (what, rest) in [
        (
            "a length and a coding",
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "a coding and a length",
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n"),
        ),
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n")),
        ("one length twice", "Content-Length: 0\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("a list of lengths", "Content-Length: 0, 0\r\n\r\n".to_owned()),
        ("a signed length", "Content-Length: +0\r\n\r\n".to_owned()),
        ("a space before the colon", format!("Content-Length : {length}\r\n\r\n")),
        ("a folded coding", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("another coding", "Transfer-Encoding: identity\r\n\r\n".to_owned()),
        ("two codings", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("a coding twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n".to_owned()),
        ("a coding with a control", "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("a bare line feed", "X: y\nContent-Length: 0\r\n\r\n".to_owned()),
        ("a bare carriage return", "X: y\rContent-Length: 0\r\n\r\n".to_owned()),
        ("a NUL", "X: y\0z\r\n\r\n".to_owned()),
        ("a name with a space", "X y: z\r\n\r\n".to_owned()),
        ("a name of nothing", ": z\r\n\r\n".to_owned()),
    ] {
        let request =
            format!("POST /echo?k=a HTTP/1.1\r\nHost: a\r\n{rest}{hidden}Connection: close\r\n\r\n");
        for host in [&a, &b] {
            let answer = raw(host, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
            assert!(!answer.contains("HTTP/1.1 200 "), "{what} hid a request: {answer}");
            let says_why = answer.contains(r#""kind":"ambiguous""#) && answer.contains("connection: close");
            assert!(says_why || of_a_field.contains(&what), "{what}: {answer}");
        }
    }
    for (what, head) in [
        ("two hosts", "GET /echo?k=a HTTP/1.1\r\nHost: a\r\nHost: b"),
        ("one host twice", "GET /echo?k=a HTTP/1.1\r\nHost: a\r\nHost: a"),
        ("a host and another in the target", "GET http://b/echo?k=a HTTP/1.1\r\nHost: a"),
        ("a user in the host", "GET /echo?k=a HTTP/1.1\r\nHost: a@b"),
    ] {
        for host in [&a, &b] {
            let answer = raw(host, format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        }
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_body_whose_chunks_have_two_readings_reaches_no_guest() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    for chunks in [
        "3\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "3 ;x\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nx: y\n\r\n",
    ] {
        let request = format!(
            "POST /kv/set?k=chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}\
             GET /echo?k=a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        );
        for host in [&a, &b] {
            let answer = raw(host, request.as_bytes()).await;
            assert!(!answer.contains("HTTP/1.1 2"), "{chunks:?}: {answer}");
        }
    }
    assert_eq!(b.client().get("/kv/get?k=chunks").await.status, 404, "a broken body was stored");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_query_with_it() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    for host in [&a, &b] {
        for path in ["/hang", "/hang-body"] {
            let mut stream = TcpStream::connect(host.agent().ingress()).await.expect("connected");
            let request = format!("GET {path}?k=a HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            eventually("the query runs", || async { !doing(&b).await.is_empty() }).await;
            drop(stream);
            eventually("the query is stopped", || async { doing(&b).await.is_empty() }).await;
        }
    }
    // The deadline would have stopped them as well, but as failures.
    let texts = crate::api::log_texts(&b, "shop", 100).await;
    assert!(!texts.iter().any(|text| text.contains("deadline")), "{texts:?}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn trailers_pass_both_ways_also_through_another_host() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    let request = "GET /pipe?k=a HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-sum\r\nConnection: close\r\n\
                   Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: right\r\n\r\n";
    for host in [&b, &a] {
        let answer = raw(host, request.as_bytes()).await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        assert!(answer.ends_with("\r\n4\r\nbody\r\n0\r\nx-sum: right\r\n\r\n"), "{answer}");
    }
    a.stop().await;
    b.stop().await;
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Sends frames without end until the ingress closes the connection; returns how many it took.
async fn flood(host: &Host, first: &[u8], mut next: impl FnMut(u32) -> Vec<u8>) -> u32 {
    const MAX_FRAMES: u32 = 1_000_000;
    let mut stream = TcpStream::connect(host.agent().ingress()).await.expect("connected");
    stream.write_all(PREFACE).await.expect("sent");
    stream.write_all(first).await.expect("sent");
    let (mut reading, mut writing) = stream.split();
    let closed = async {
        let mut ignored = [0; 4096];
        while reading.read(&mut ignored).await.is_ok_and(|length| length > 0) {}
    };
    let mut sent = 0;
    let sending = async {
        while sent < MAX_FRAMES && writing.write_all(&next(sent)).await.is_ok() {
            sent += 1;
        }
    };
    let both = async {
        tokio::select! {
            () = closed => {}
            () = sending => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("the flood ends");
    assert!(sent < MAX_FRAMES, "the ingress takes frames without end");
    sent
}

#[tokio::test]
async fn a_flood_of_frames_costs_its_connection_and_nothing_else() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    let get = [GET, b"\x01\x01b"].concat();
    let stream_of = |number: u32| 2 * number + 1;
    let reset = |number: u32| {
        let mut frames = frame(HEADERS, END_STREAM | END_HEADERS, stream_of(number), &get);
        frames.extend(frame(RST_STREAM, 0, stream_of(number), &8_u32.to_be_bytes()));
        frames
    };
    flood(&b, &[], reset).await;

    let open = frame(HEADERS, END_STREAM, 1, &get);
    // Fields of a kilobyte each, which no table remembers.
    let field = [&b"\0\x01x\x7f\xf9\x06"[..], &[b'x'; 1016]].concat();
    flood(&b, &open, |_| frame(CONTINUATION, 0, 1, &field)).await;
    flood(&b, &open, |_| frame(CONTINUATION, 0, 1, &[])).await;

    let answer = b.client().post("/kv/incr?k=n", "").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "1"));
    // Not a flood: what a living client sends.
    let mut stream = TcpStream::connect(b.agent().ingress()).await.expect("connected");
    stream.write_all(&[PREFACE, &frame(PING, 0, 0, b"12345678")].concat()).await.expect("sent");
    let pong = frame(PING, 1, 0, b"12345678");
    let mut read = Vec::new();
    let answered = async {
        while !read.ends_with(&pong) {
            read.push(stream.read_u8().await.expect("it stays open"));
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("a living connection is answered");
    a.stop().await;
    b.stop().await;
}
