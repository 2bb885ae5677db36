//! Forms that a request may take and should not: each is either refused with a reason, or harmless and read in one way.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::hostile_client::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, raw, two_hosts,
};
use crate::support::{Host, Keys, PATIENCE};

const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const PRIORITY: u8 = 2;
const GOAWAY: u8 = 7;
/// The field `:status: 200`, by the static table of HPACK.
const STATUS_200: u8 = 0x88;

/// A request of HTTP/1 that ends its connection, after the lines of its head.
fn last(head: &str, body: &str) -> Vec<u8> {
    format!("{head}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn a_strange_form_of_http_1_is_refused_or_read_in_one_way() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    let get = "GET /echo?k=a HTTP/1.1\r\nHost: a";
    let post = "POST /echo?k=a HTTP/1.1\r\nHost: a";
    let chunked = format!("{post}\r\nTransfer-Encoding: chunked");
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade";
    for (what, request, statuses) in [
        ("the method CONNECT", last("CONNECT a:80 HTTP/1.1\r\nHost: a:80", ""), &["501"][..]),
        ("all of a server", last("OPTIONS * HTTP/1.1\r\nHost: a", ""), &["400", "404"]),
        ("a whole address", last("GET http://a/echo?k=a HTTP/1.1\r\nHost: a", ""), &["200"]),
        ("another scheme's address", last("GET file:///echo?k=a HTTP/1.1\r\nHost: a", ""), &["400"]),
        ("no version", b"GET /echo?k=a\r\n\r\n".to_vec(), &["400"]),
        ("another version", last("GET /echo?k=a HTTP/1.2\r\nHost: a", ""), &["400"]),
        ("a version of two digits", last("GET /echo?k=a HTTP/1.11\r\nHost: a", ""), &["400"]),
        ("the version of frames", last("GET /echo?k=a HTTP/2.0\r\nHost: a", ""), &["400"]),
        ("a tab in the first line", last("GET\t/echo?k=a HTTP/1.1\r\nHost: a", ""), &["400"]),
        ("a space in the target", last("GET /echo?k=a b HTTP/1.1\r\nHost: a", ""), &["400"]),
        ("a name that goes on", last(&format!("{get}\r\n X: y"), ""), &["400"]),
        (
            "chunks in HTTP/1.0",
            last("POST /echo?k=a HTTP/1.0\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            &["400"],
        ),
        (
            "an upgrade to HTTP/2",
            last(&format!("{get}\r\n{upgrade}: h2c\r\nHTTP2-Settings: AAMAAABk"), ""),
            &["200"],
        ),
        ("an upgrade to something else", last(&format!("{get}\r\n{upgrade}: websocket"), ""), &["200"]),
        ("an extension of a chunk", last(&chunked, "3;a=\"b;c\"\r\nabc\r\n0;x\r\n\r\n"), &["200"]),
        (
            "an extension without end",
            last(&chunked, &format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(128 << 10))),
            &["400"],
        ),
        (
            "trailers without end",
            last(&chunked, &format!("3\r\nabc\r\n0\r\n{}\r\n", "x: y\r\n".repeat(20_000))),
            &["400"],
        ),
        ("an expectation without a body", last(&format!("{get}\r\nExpect: 100-continue"), ""), &["200"]),
        ("more fields than anyone needs", last(&format!("{get}{}", "\r\nX: y".repeat(101)), ""), &["431"]),
        ("a field without end", last(&format!("{get}\r\nX: {}", "x".repeat(128 << 10)), ""), &["431"]),
        ("fields without end", last(&format!("{get}{}", "\r\nX: y".repeat(20_000)), ""), &["431"]),
        ("a method of ours", last("HVM-REFUSED /echo?k=a HTTP/1.1\r\nHost: a", ""), &["400"]),
    ] {
        for host in [&a, &b] {
            let answer = raw(host, &request).await;
            let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
            assert!(status.is_some_and(|status| statuses.contains(&status)), "{what}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
        }
    }
    // Who waits to be told goes on, and is told once.
    let request = last(&format!("{post}\r\nExpect: 100-continue\r\nContent-Length: 4"), "body");
    for host in [&a, &b] {
        let answer = raw(host, &request).await;
        assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with("body"), "{answer}");
    }
    a.stop().await;
    b.stop().await;
}

/// Fields as HPACK writes them that no table is to remember (RFC 7541, 6.2.2).
fn fields(of: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in of {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Sends the frames of one connection; returns what the ingress sends until it has answered a ping, or ended it.
async fn frames(host: &Host, sent: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut stream = TcpStream::connect(host.agent().ingress()).await.expect("connected");
    let end = frame(PING, 0, 0, b"the end!");
    // It may close the connection before it has read everything.
    let _ = stream.write_all(&[PREFACE, sent].concat()).await;
    let mut got = Vec::new();
    let reading = async {
        let mut is_asked = false;
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                break;
            }
            let is_answer = matches!(head[3], HEADERS | 3 | GOAWAY);
            let is_end = head[3] == PING && payload == b"the end!";
            got.push((head[3], payload));
            if is_end {
                break;
            }
            if is_answer && !std::mem::replace(&mut is_asked, true) {
                let _ = stream.write_all(&end).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("something is answered");
    got
}

fn is_answered(frames: &[(u8, Vec<u8>)]) -> bool {
    frames.iter().any(|(kind, payload)| *kind == HEADERS && payload.first() == Some(&STATUS_200))
}

#[tokio::test]
async fn a_strange_form_of_http_2_reaches_no_guest() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    const METHOD: (&str, &str) = (":method", "POST");
    const SCHEME: (&str, &str) = (":scheme", "http");
    const AUTHORITY: (&str, &str) = (":authority", "a");
    const PATH: (&str, &str) = (":path", "/kv/incr?k=forms");
    let all = [METHOD, SCHEME, AUTHORITY, PATH];
    let and = |more: (&'static str, &'static str)| [&all[..], &[more]].concat();
    let request = |of: &[(&str, &str)]| frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(of));
    for (what, sent) in [
        ("no method", request(&[SCHEME, AUTHORITY, PATH])),
        ("no scheme", request(&[METHOD, AUTHORITY, PATH])),
        ("no path", request(&[METHOD, SCHEME, AUTHORITY])),
        ("an empty path", request(&[METHOD, SCHEME, AUTHORITY, (":path", "")])),
        ("two methods", request(&and(METHOD))),
        ("two paths", request(&and(PATH))),
        ("two authorities", request(&and(AUTHORITY))),
        ("an unknown one of its kind", request(&and((":other", "x")))),
        ("a status", request(&and((":status", "200")))),
        ("a method behind the fields", request(&[SCHEME, AUTHORITY, PATH, ("x", "y"), METHOD])),
        ("a name in capitals", request(&and(("X-Mine", "y")))),
        ("a name with a space", request(&and(("x y", "z")))),
        ("a name with a line end", request(&and(("x\r\ny", "z")))),
        ("a value with a line end", request(&and(("x", "y\r\nContent-Length: 9")))),
        ("a value with a NUL", request(&and(("x", "y\0z")))),
        (
            "a path with a line end",
            request(&[METHOD, SCHEME, AUTHORITY, (":path", "/kv/incr?k=forms HTTP/1.1\r\nX: y")]),
        ),
        ("a field of one connection", request(&and(("connection", "close")))),
        ("a coding", request(&and(("transfer-encoding", "chunked")))),
        ("an upgrade", request(&and(("upgrade", "h2c")))),
        ("codings of the answer", request(&and(("te", "gzip")))),
        ("a length and no body", request(&and(("content-length", "4")))),
        ("two lengths", request(&[&and(("content-length", "0"))[..], &[("content-length", "1")]].concat())),
        ("another host", request(&and(("host", "b")))),
        ("a user", request(&[METHOD, SCHEME, (":authority", "u@a"), PATH])),
        (
            "a length and more",
            [
                frame(HEADERS, END_HEADERS, 1, &fields(&and(("content-length", "1")))),
                frame(DATA, END_STREAM, 1, b"more"),
            ]
            .concat(),
        ),
        (
            "a length and less",
            [
                frame(HEADERS, END_HEADERS, 1, &fields(&and(("content-length", "9")))),
                frame(DATA, END_STREAM, 1, b"less"),
            ]
            .concat(),
        ),
        ("a tunnel", request(&[(":method", "CONNECT"), (":authority", "a:80")])),
        (
            "a tunnel with a protocol",
            request(&[(":method", "CONNECT"), SCHEME, AUTHORITY, PATH, (":protocol", "x")]),
        ),
        ("a stream of the server's", frame(HEADERS, END_STREAM | END_HEADERS, 2, &fields(&all))),
        ("data without a stream", frame(DATA, END_STREAM, 1, b"data")),
        ("data of the connection", frame(DATA, END_STREAM, 0, b"data")),
        ("a window of nothing more", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        (
            "more windows than there are",
            [request(&all[..3]), frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())].concat(),
        ),
        ("a setting of a window too large", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("half a setting", frame(SETTINGS, 0, 0, &[0, 4, 0])),
        ("fields that are none", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff; 16])),
        ("a frame too large", frame(DATA, 0, 1, &[0; 17 << 10])),
    ] {
        for host in [&a, &b] {
            let got = frames(host, &sent).await;
            assert!(!is_answered(&got), "{what}: {got:?}");
        }
    }
    // As it should be, the same request is answered, and is the first that arrived.
    let got = frames(&b, &request(&all)).await;
    assert!(is_answered(&got), "{got:?}");
    assert_eq!(b.client().get("/kv/get?k=forms").await.text(), "1", "a strange form reached a guest");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn frames_that_ask_for_nothing_are_taken_one_by_one_and_keep_nobody_waiting() {
    const FRAMES: usize = 20_000;
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    let post = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/hang?k=a")];
    let open = frame(HEADERS, END_HEADERS, 1, &fields(&post));
    let window = |size: u8| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, size, 0]);
    for (what, first, flood) in [
        ("pings", &[][..], frame(PING, 0, 0, b"12345678")),
        ("settings", &[], frame(SETTINGS, 0, 0, &[])),
        ("windows that grow and shrink", &open, [window(0), window(200)].concat()),
        ("windows of a byte", &open, frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())),
        ("data of nothing", &open, frame(DATA, 0, 1, &[])),
        ("data of a byte", &open, frame(DATA, 0, 1, b"x")),
        ("priorities", &[], frame(PRIORITY, 0, 1, &[0; 5])),
        ("what nobody knows", &[], frame(0xbe, 0, 0, b"x")),
    ] {
        let mut stream = TcpStream::connect(b.agent().ingress()).await.expect("connected");
        stream.write_all(&[PREFACE, first].concat()).await.expect("sent");
        // Nothing is read of what is answered, so that sending may stop, or fail.
        let flooding = async {
            let _ = stream.write_all(&flood.repeat(FRAMES)).await;
            std::future::pending::<()>().await;
        };
        let asking = async {
            for _ in 0..5 {
                let answer = b.client().get("/echo?k=a").await;
                assert_eq!(answer.status, 200, "{what}");
            }
        };
        tokio::select! {
            () = asking => {}
            () = flooding => {}
        }
    }
    a.stop().await;
    b.stop().await;
}
