//! Clients that never come to a request, or to no other one. Time is how often the table of connections is looked at.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::LocalSet;

use super::super::connections::{Connections, MOST_QUIET_LOOKS, QUIET_LOOKS};
use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// How an HTTP/2 connection begins (RFC 9113, 3.4), and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// A head on stream 1, `GET / http`, the first without its end.
const HEADERS_WITHOUT_END: &[u8] = b"\0\0\x03\x01\x01\0\0\0\x01\x82\x84\x86";
const HEADERS: &[u8] = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x01\x01a";
const GOAWAY: u8 = 7;

/// A worker's connections, and the clients' ends of them.
struct Scene {
    connections: Rc<Connections>,
    server: Rc<Server>,
    stopped: watch::Receiver<bool>,
    _stop: watch::Sender<bool>,
    /// Lets an answer go on.
    go_on: Rc<Notify>,
}

impl Scene {
    fn new(places: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self {
            connections: Connections::new(Arc::new(Semaphore::new(places))),
            server: Rc::new(Server::new()),
            stopped,
            _stop: stop,
            go_on: Rc::default(),
        }
    }

    /// A client that was accepted; its request to `/slow` is answered when the scene says so.
    fn client(&self) -> DuplexStream {
        let (client, stream) = tokio::io::duplex(64 << 10);
        let connection = self.connections.try_open().expect("a place");
        let (server, stopped, go_on) =
            (Rc::clone(&self.server), self.stopped.clone(), Rc::clone(&self.go_on));
        tokio::task::spawn_local(async move {
            let answer = move |request: Request<ClientBody>| {
                let go_on = Rc::clone(&go_on);
                async move {
                    if request.uri().path() == "/slow" {
                        go_on.notified().await;
                    }
                    Response::new(Full::new(Bytes::from_static(b"answer")))
                }
            };
            server.serve(stream, answer, stopped, connection).await;
        });
        client
    }

    /// Looks so often, and lets everybody act in between.
    async fn looks(&self, times: u32) {
        for _ in 0..times {
            self.connections.look();
            settle().await;
        }
    }
}

/// Lets every task run as long as it has something to do.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// What there is to read now, and whether that is all there will ever be.
fn read(client: &mut DuplexStream) -> (Vec<u8>, bool) {
    let mut read = Vec::new();
    let has_ended = client.read_to_end(&mut read).now_or_never().is_some();
    (read, has_ended)
}

async fn run<T>(story: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(story).await
}

#[tokio::test]
async fn a_client_that_never_comes_to_a_request_is_given_up_however_it_delays() {
    let preface_and = |rest: &[u8]| [PREFACE, rest].concat();
    for (what, sent, drip) in [
        ("nothing", vec![], &b""[..]),
        ("an empty line", b"\r\n".to_vec(), b""),
        ("a head byte by byte", b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), b"y"),
        ("a head line by line", b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(), b"X: y\r\n"),
        ("empty lines", b"\r\n".to_vec(), b"\r\n"),
        ("half a preface of HTTP/2", PREFACE[..20].to_vec(), b""),
        ("a preface without settings", PREFACE.to_vec(), b""),
        ("settings and no request", preface_and(SETTINGS), b""),
        ("pings", preface_and(SETTINGS), b"\0\0\x08\x06\0\0\0\0\0pingping"),
        ("settings again and again", preface_and(SETTINGS), SETTINGS),
        ("window updates", preface_and(SETTINGS), b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01"),
        ("HTTP/2 fields without end", preface_and(&[SETTINGS, HEADERS_WITHOUT_END].concat()), b""),
        (
            "HTTP/2 fields piece by piece",
            preface_and(&[SETTINGS, HEADERS_WITHOUT_END].concat()),
            b"\0\0\x04\x09\0\0\0\0\x01\0\x01x\0",
        ),
    ] {
        run(async {
            let scene = Scene::new(1);
            let mut client = scene.client();
            client.write_all(&sent).await.expect("room");
            for look in 0..MOST_QUIET_LOOKS {
                scene.looks(1).await;
                // Some are closed earlier, for flooding.
                let _ = client.write_all(drip).await;
                if look < 10 && !what.contains("piece") {
                    assert!(scene.connections.try_open().is_none(), "{what}: closed at once");
                }
            }
            settle().await;
            assert!(scene.connections.try_open().is_some(), "{what}: still open");
        })
        .await;
    }
}

#[tokio::test]
async fn an_unused_connection_ends_after_its_time_and_a_used_one_does_not() {
    run(async {
        let scene = Scene::new(2);
        let (mut unused, mut used) = (scene.client(), scene.client());
        unused.write_all(GET).await.expect("room");
        for _ in 0..3 {
            used.write_all(GET).await.expect("room");
            scene.looks(QUIET_LOOKS - 1).await;
        }
        let (answer, has_ended) = read(&mut unused);
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"answer") && has_ended);
        let (answers, has_ended) = read(&mut used);
        assert!(!has_ended, "a connection was closed although it was used");
        assert_eq!(String::from_utf8_lossy(&answers).matches("HTTP/1.1 200").count(), 3);
    })
    .await;
}

#[tokio::test]
async fn an_answer_may_take_as_long_as_it_takes() {
    for (sent, slow) in [
        (&b""[..], &b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
        // `:path` `/slow`, as a literal of its own.
        (&[PREFACE, SETTINGS].concat(), b"\0\0\x0c\x01\x05\0\0\0\x01\x82\x04\x05/slow\x86\x01\x01a"),
    ] {
        run(async {
            let scene = Scene::new(1);
            let mut client = scene.client();
            client.write_all(&[sent, slow].concat()).await.expect("room");
            settle().await;
            scene.looks(3 * MOST_QUIET_LOOKS).await;
            scene.connections.make_room();
            settle().await;
            assert!(!read(&mut client).1, "closed while it was answered");
            scene.go_on.notify_one();
            settle().await;
            let (answer, _) = read(&mut client);
            assert!(answer.ends_with(b"answer"), "{}", answer.escape_ascii());
        })
        .await;
    }
}

#[tokio::test]
async fn an_http_2_client_is_told_before_its_unused_connection_ends() {
    run(async {
        let scene = Scene::new(1);
        let mut client = scene.client();
        client.write_all(&[PREFACE, SETTINGS, HEADERS].concat()).await.expect("room");
        settle().await;
        scene.looks(QUIET_LOOKS).await;
        let (answer, _) = read(&mut client);
        assert!(answer.windows(6).any(|part| part == b"answer"), "{}", answer.escape_ascii());
        assert!(!kinds(&answer).contains(&GOAWAY), "{}", answer.escape_ascii());
        scene.looks(1).await;
        let (rest, has_ended) = read(&mut client);
        assert!(kinds(&rest).contains(&GOAWAY) && !has_ended, "{}", rest.escape_ascii());
        scene.looks(MOST_QUIET_LOOKS - QUIET_LOOKS).await;
        assert!(read(&mut client).1, "it does not answer, and stays");
    })
    .await;
}

#[tokio::test]
async fn a_full_worker_lets_the_unused_ones_go_and_is_there_for_the_next() {
    run(async {
        let scene = Scene::new(2);
        let (mut half, mut kept) = (scene.client(), scene.client());
        half.write_all(b"GET / HT").await.expect("room");
        scene.looks(2).await;
        kept.write_all(GET).await.expect("room");
        scene.looks(1).await;
        assert!(scene.connections.try_open().is_none());
        scene.connections.make_room();
        settle().await;
        assert_eq!(read(&mut half), (vec![], true));
        assert!(!read(&mut kept).1);
        let mut next = scene.client();
        next.write_all(GET).await.expect("room");
        settle().await;
        assert!(read(&mut next).0.ends_with(b"answer"));
    })
    .await;
}

/// The kinds of the frames (RFC 9113, 4.1).
fn kinds(mut frames: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [high, middle, low, kind, ..] = frames {
        kinds.push(*kind);
        let length = u32::from_be_bytes([0, *high, *middle, *low]);
        frames = frames.get(9 + length as usize..).unwrap_or_default();
    }
    kinds
}
