//! What the ingress answers and refuses.

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Host, Image, Keys, Scheduler, assignments, document};

async fn serving(keys: &Keys) -> (Scheduler, Host) {
    let scheduler = Scheduler::start().await;
    let image = Image::probe("1.0.0", keys);
    scheduler.put_image(&image);
    let host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    let mut desired = document(1, assignments(0..2, 1, image.manifest()), 3, &[host.entry()]);
    desired.routing.routes[0].route.r#match.prefix = "/kv".to_owned();
    let mut echo = desired.routing.routes[0].clone();
    echo.route.r#match.prefix = "/echo".to_owned();
    desired.routing.routes.push(echo);
    desired.routing.groups[0].owners.retain(|owner| owner.index < 2);
    scheduler.put_document("a", desired);
    scheduler.reported("a", |reported| reported.all_ready(2, 1)).await;
    (scheduler, host)
}

#[tokio::test]
async fn a_request_that_no_partition_can_take_is_refused_with_the_reason() {
    let keys = Keys::new();
    let (_scheduler, mut host) = serving(&keys).await;
    let client = host.client();

    let answer = client.get("/elsewhere").await;
    assert_eq!((answer.status.as_u16(), answer.error("kind").as_str()), (404, "no-route"));
    assert!(answer.error("message").contains("/elsewhere"));

    let answer = client.get("/kv/get").await;
    assert_eq!((answer.status.as_u16(), answer.error("kind").as_str()), (400, "key-missing"));
    assert!(answer.error("message").contains("the query parameter `k`"));

    let answer = client.get("/kv/get?k=a&k=b").await;
    assert_eq!((answer.status.as_u16(), answer.error("kind").as_str()), (400, "key-invalid"));

    let unplaced =
        (0..).map(|n| format!("key-{n}")).find(|key| hvm_agent::partition_of(key.as_bytes(), 3) == 2);
    let answer = client.get(&format!("/kv/get?k={}", unplaced.expect("some key"))).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.error("partition"), "shop/parts/2");
    host.stop().await;
}

#[tokio::test]
async fn a_guest_sees_neither_what_belongs_to_the_connection_nor_what_is_ours() {
    let keys = Keys::new();
    let (_scheduler, mut host) = serving(&keys).await;
    let key = (0..).map(|n| format!("key-{n}")).find(|key| hvm_agent::partition_of(key.as_bytes(), 3) < 2);
    let path = format!("/echo?k={}", key.expect("some key"));
    let headers = [("connection", "x-mine"), ("x-mine", "1"), ("hvm-hop", "evil"), ("x-theirs", "2")];
    let answer = host.client().send(Method::POST, &path, &headers, "body").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "body"));
    assert_eq!(answer.header("echo-header-x-theirs"), Some("2"));
    for gone in ["connection", "x-mine", "hvm-hop"] {
        assert_eq!(answer.header(&format!("echo-header-{gone}")), None, "{gone}");
    }
    host.stop().await;
}

/// What the ingress answers to these bytes, until it closes the connection.
async fn raw(host: &Host, bytes: &[u8]) -> String {
    let mut stream = tokio::net::TcpStream::connect(host.agent().ingress()).await.expect("connected");
    // It may close the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_that_two_readers_could_read_differently_is_refused() {
    let keys = Keys::new();
    let (_scheduler, mut host) = serving(&keys).await;
    for (bytes, what) in [
        (&b"GET /kv/get?k=a HTTP/1.1\r\nConnection: close\r\n\r\n"[..], "no host"),
        (b"GET /kv/get?k=a HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", "two hosts"),
        (
            b"POST /kv/set?k=a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "two lengths",
        ),
        (
            b"GET /kv/get?k=a HTTP/1.1\r\nHost: a\r\n continued: x\r\nConnection: close\r\n\r\n",
            "a folded line",
        ),
    ] {
        let answer = raw(&host, bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
    }
    let long = format!("GET /kv/get?k=a HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(128 << 10));
    let answer = raw(&host, long.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    host.stop().await;
}

#[tokio::test]
async fn http_2_is_spoken_without_asking() {
    let keys = Keys::new();
    let (_scheduler, mut host) = serving(&keys).await;
    let key = (0..).map(|n| format!("key-{n}")).find(|key| hvm_agent::partition_of(key.as_bytes(), 3) < 2);
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http::<http_body_util::Full<bytes::Bytes>>();
    let uri = format!("http://{}/echo?k={}", host.agent().ingress(), key.expect("some key"));
    let response = client.get(uri.parse().expect("an address")).await.expect("an answer");
    assert_eq!((response.version(), response.status().as_u16()), (http::Version::HTTP_2, 200));
    drop((response, client));
    host.stop().await;
}

#[tokio::test]
async fn a_request_for_a_partition_that_is_starting_waits_for_it() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    scheduler.put_document("a", document(1, assignments(0..2, 1, image.manifest()), 2, &[host.entry()]));
    let client = host.client();
    let answer = loop {
        let answer = client.post("/kv/incr?k=n", "").await;
        if answer.status != 503 || answer.error("kind") != "no-document" {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "1"));
    host.stop().await;
}
