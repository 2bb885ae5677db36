//! The policy against real servers on loopback: what is granted works, everything else does not arrive.
//!
//! `testdata/` holds a certificate of `localhost`, its key, and the authority that signed it (P-256, valid
//! until 2120). They guard nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hvm_types::OriginHost;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::connect::checked;
use super::*;

/// Far beyond what anything here takes; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server on loopback that answers each connection with the same bytes.
struct Server {
    address: SocketAddr,
    /// The head of each request, as it came.
    heads: mpsc::Receiver<String>,
}

impl Server {
    /// Answers with `answer`; closes the connection after it or holds it open.
    async fn start(answer: impl Into<String>, close: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (seen, heads) = mpsc::channel(64);
        let answer = answer.into();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move {
                    let head = read_head(&mut stream).await;
                    let _ = seen.send(head).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                    if !close {
                        // Until the other side closes.
                        let _ = stream.read_to_end(&mut Vec::new()).await;
                        let _ = seen.send("closed".to_owned()).await;
                    }
                });
            }
        });
        Self { address, heads }
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    fn localhost(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    async fn next(&mut self) -> String {
        let head = tokio::time::timeout(PATIENCE, self.heads.recv()).await;
        head.expect("the server is asked in time").expect("the server runs")
    }
}

/// Whether an error is the one that was expected.
type Expected = fn(&Error) -> bool;

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn policy(grants: &[&str]) -> EgressPolicy {
    let grants: Vec<String> = grants.iter().map(|&grant| grant.to_owned()).collect();
    EgressPolicy::from_grants(&grants).expect("the grants are origins")
}

fn empty() -> WasiBody {
    Empty::<Bytes>::new().map_err(Error::from).boxed_unsync()
}

fn get(uri: &str) -> Request<WasiBody> {
    Request::get(uri).body(empty()).expect("a request")
}

fn short(first_byte: bool) -> RequestOptions {
    let tiny = Some(Duration::from_millis(30));
    RequestOptions {
        connect_timeout: if first_byte { None } else { tiny },
        first_byte_timeout: if first_byte { tiny } else { None },
        between_bytes_timeout: None,
    }
}

/// Status and whole body.
async fn fetch(policy: &EgressPolicy, request: Request<WasiBody>) -> Result<(StatusCode, Bytes), Error> {
    let (response, driver) = send(policy, request, None).await?;
    let driver = tokio::spawn(Box::into_pin(driver));
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    drop(driver);
    Ok((status, body))
}

async fn refusal(policy: &EgressPolicy, request: Request<WasiBody>) -> Error {
    match tokio::time::timeout(PATIENCE, fetch(policy, request)).await.expect("an answer in time") {
        Ok((status, _)) => panic!("it was answered with {status}"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_granted_origin_is_reached_with_a_clean_request() {
    let mut server = Server::start(OK, false).await;
    let policy = policy(&[&server.origin()]);
    let body = Full::new(Bytes::from("12345")).map_err(Error::from).boxed_unsync();
    let request = Request::post(format!("{}/a?b=c", server.origin()))
        .header("x-app", "yes")
        .header("host", "other.example")
        .header("connection", "x-secret, keep-alive")
        .header("x-secret", "hop")
        .header("te", "trailers")
        .header("upgrade", "websocket")
        .header("proxy-authorization", "Basic x")
        .body(body)
        .expect("a request");
    let (status, body) = fetch(&policy, request).await.expect("it is granted");
    assert_eq!((status, body.as_ref()), (StatusCode::OK, &b"ok"[..]));
    let head = server.next().await.to_ascii_lowercase();
    let mut lines: Vec<&str> = head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "post /a?b=c http/1.1");
    lines.sort_unstable();
    assert_eq!(lines, ["content-length: 5", &format!("host: {}", server.address), "x-app: yes"]);
    let traffic = policy.traffic();
    assert_eq!(traffic.sent_bytes, (head.len() + 5) as u64);
    assert_eq!(traffic.received_bytes, OK.len() as u64);
}

#[tokio::test]
async fn an_origin_that_is_not_granted_is_never_connected_to() {
    let mut server = Server::start(OK, true).await;
    let port = server.address.port();
    let other_port = format!("http://127.0.0.1:{}", port.wrapping_add(1).max(1));
    for grants in [vec![], vec![other_port.as_str()], vec!["https://rates.example"]] {
        let error = refusal(&policy(&grants), get(&server.origin())).await;
        assert!(matches!(error, Error::HttpRequestDenied), "{grants:?}: {error:?}");
    }
    let https = format!("https://127.0.0.1:{port}");
    assert!(matches!(refusal(&policy(&[&https]), get(&server.origin())).await, Error::HttpRequestDenied));
    assert!(server.heads.try_recv().is_err(), "nothing may arrive");
}

#[tokio::test]
async fn localhost_is_reached_only_where_it_is_granted_by_that_name() {
    let server = Server::start(OK, true).await;
    let by_address = policy(&[&server.origin()]);
    let by_name = policy(&[&server.localhost()]);
    assert!(fetch(&by_name, get(&server.localhost())).await.is_ok());
    assert!(matches!(refusal(&by_address, get(&server.localhost())).await, Error::HttpRequestDenied));
    assert!(matches!(refusal(&by_name, get(&server.origin())).await, Error::HttpRequestDenied));
}

#[tokio::test]
async fn other_ways_to_write_an_address_are_refused() {
    let mut server = Server::start(OK, true).await;
    let port = server.address.port();
    let policy = policy(&[&server.origin(), &server.localhost()]);
    for host in [
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.0.1.",
        "localhost.",
        "user@127.0.0.1",
        "user:password@localhost",
    ] {
        let error = refusal(&policy, get(&format!("http://{host}:{port}/"))).await;
        assert!(matches!(error, Error::HttpRequestUriInvalid), "{host}: {error:?}");
    }
    let mapped = refusal(&policy, get(&format!("http://[::ffff:127.0.0.1]:{port}/"))).await;
    assert!(matches!(mapped, Error::HttpRequestDenied), "{mapped:?}");
    assert!(server.heads.try_recv().is_err(), "nothing may arrive");
}

#[test]
fn a_name_leads_only_to_those_of_its_addresses_that_are_public() {
    let host: OriginHost = "rates.example".parse().expect("a host");
    let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
    let inside = vec![address("127.0.0.1:443"), address("[::1]:443"), address("169.254.169.254:443")];
    assert!(matches!(checked(&host, inside.clone()), Err(Error::DestinationIpProhibited)));
    let mixed = inside.into_iter().chain([address("1.1.1.1:443")]).collect();
    assert_eq!(checked(&host, mixed).expect("one is public"), [address("1.1.1.1:443")]);
    assert!(matches!(checked(&host, Vec::new()), Err(Error::DestinationNotFound)));
    let many = (0..100).map(|n| SocketAddr::from(([1, 1, 1, n], 443))).collect();
    assert_eq!(checked(&host, many).expect("they are public").len(), 8);
}

#[tokio::test]
async fn a_redirect_is_the_guests_to_follow() {
    let mut inside = Server::start(OK, true).await;
    let answer = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", inside.origin());
    let outside = Server::start(answer, true).await;
    let policy = policy(&[&outside.origin()]);
    let (status, _) = fetch(&policy, get(&outside.origin())).await.expect("it is granted");
    assert_eq!(status, StatusCode::FOUND);
    assert!(inside.heads.try_recv().is_err(), "the host must not follow");
    assert!(matches!(refusal(&policy, get(&inside.origin())).await, Error::HttpRequestDenied));
}

#[tokio::test]
async fn requests_that_are_too_large_or_open_a_tunnel_are_refused() {
    let mut server = Server::start(OK, true).await;
    let policy = policy(&[&server.origin()]);
    let mut headers = get(&server.origin());
    for n in 0..70 {
        let name: http::HeaderName = format!("x-{n}").parse().expect("a name");
        headers.headers_mut().insert(name, "x".repeat(1_000).parse().expect("a value"));
    }
    let error = refusal(&policy, headers).await;
    assert!(matches!(error, Error::HttpRequestHeaderSectionSize(Some(70_000..))), "{error:?}");
    let long = get(&format!("{}/{}", server.origin(), "x".repeat(9_000)));
    assert!(matches!(refusal(&policy, long).await, Error::HttpRequestUriTooLong));
    let mut tunnel = get(&server.origin());
    *tunnel.method_mut() = Method::CONNECT;
    assert!(matches!(refusal(&policy, tunnel).await, Error::HttpRequestMethodInvalid));
    assert!(matches!(refusal(&policy, get("/no/authority")).await, Error::HttpRequestUriInvalid));
    assert!(server.heads.try_recv().is_err(), "nothing may arrive");
}

#[tokio::test]
async fn answers_that_break_the_protocol_or_its_bounds_are_errors() {
    let long = |bytes| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(bytes));
    let many: String = (0..200).map(|n| format!("x-{n}: x\r\n")).collect();
    let cases: [(String, Expected); 7] = [
        (long(70_000), |error| matches!(error, Error::HttpResponseHeaderSectionSize(_))),
        (long(1_000_000), |error| matches!(error, Error::HttpResponseHeaderSectionSize(_))),
        (format!("HTTP/1.1 200 OK\r\n{many}\r\n"), |error| {
            matches!(error, Error::HttpResponseHeaderSectionSize(_))
        }),
        ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), |error| matches!(error, Error::HttpProtocolError)),
        (String::new(), |error| matches!(error, Error::HttpResponseIncomplete)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_owned(), |error| {
            matches!(error, Error::HttpResponseIncomplete)
        }),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_owned(),
            |error| matches!(error, Error::HttpUpgradeFailed),
        ),
    ];
    for (answer, is_right) in cases {
        let server = Server::start(answer.clone(), true).await;
        let error = refusal(&policy(&[&server.origin()]), get(&server.origin())).await;
        assert!(is_right(&error), "{:.60}: {error:?}", answer);
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let server = Server::start("", false).await;
    let silent = policy(&[&server.origin()]);
    let options = Some(short(true));
    let sent = tokio::time::timeout(PATIENCE, send(&silent, get(&server.origin()), options)).await;
    assert!(matches!(sent.expect("it gives up").err(), Some(Error::ConnectionReadTimeout)));

    // The connection is made, but TLS never begins.
    let origin = format!("https://{}", server.address);
    let silent = policy(&[&origin]);
    let sent = tokio::time::timeout(PATIENCE, send(&silent, get(&origin), Some(short(false)))).await;
    assert!(matches!(sent.expect("it gives up").err(), Some(Error::ConnectionTimeout)));
}

#[tokio::test]
async fn a_body_that_stalls_is_an_error_and_a_guest_that_reads_late_is_not() {
    let server = Server::start("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", false).await;
    let policy = policy(&[&server.origin()]);
    let between_bytes = Duration::from_millis(300);
    let options = RequestOptions { between_bytes_timeout: Some(between_bytes), ..RequestOptions::default() };
    let (response, driver) = send(&policy, get(&server.origin()), Some(options)).await.expect("a head");
    let driver = tokio::spawn(Box::into_pin(driver));
    let mut body = response.into_body();
    // The guest is busy for longer than the limit while its bytes are there.
    tokio::time::sleep(2 * between_bytes).await;
    let frame = body.frame().await.expect("a frame").expect("late reading is no error");
    assert_eq!(frame.into_data().expect("data"), "half");
    let stalled = tokio::time::timeout(PATIENCE, body.frame()).await.expect("it gives up");
    assert!(matches!(stalled, Some(Err(Error::ConnectionReadTimeout))));
    drop(driver);
}

#[tokio::test]
async fn dropping_the_driver_closes_the_connection_and_makes_room() {
    let mut server = Server::start("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", false).await;
    let policy = policy(&[&server.origin()]);
    let mut permits: Vec<_> = std::iter::from_fn(|| policy.admit()).collect();
    assert_eq!(permits.len(), MAX_CONNECTIONS);
    let refused = refusal(&policy, get(&server.origin())).await;
    assert!(matches!(refused, Error::ConnectionLimitReached), "{refused:?}");
    permits.pop();
    let (response, driver) = send(&policy, get(&server.origin()), None).await.expect("room for one");
    assert!(policy.admit().is_none(), "an open connection takes its place");
    drop((response, driver));
    assert!(policy.admit().is_some());
    assert!(server.next().await.starts_with("GET / HTTP/1.1"));
    assert_eq!(server.next().await, "closed");
}

#[tokio::test]
async fn a_port_where_nobody_listens_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let origin = format!("http://{}", listener.local_addr().expect("it is bound"));
    drop(listener);
    assert!(matches!(refusal(&policy(&[&origin]), get(&origin)).await, Error::ConnectionRefused));
}

fn authority() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from(&include_bytes!("testdata/authority.der")[..]);
    roots.add(authority).expect("it is an authority");
    roots
}

/// A TLS server with the certificate of `localhost`.
async fn tls_server() -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from(&include_bytes!("testdata/localhost.der")[..]);
    let key = PrivatePkcs8KeyDer::from(&include_bytes!("testdata/localhost-key.der")[..]);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::from(key))
        .expect("the key fits the certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_tls(acceptor.clone(), stream));
        }
    });
    port
}

async fn answer_tls(acceptor: TlsAcceptor, stream: TcpStream) {
    if let Ok(mut stream) = acceptor.accept(stream).await {
        read_head(&mut stream).await;
        let _ = stream.write_all(OK.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

#[tokio::test]
async fn certificates_are_checked_for_authority_and_name() {
    let port = tls_server().await;
    let (by_name, by_address) = (format!("https://localhost:{port}"), format!("https://127.0.0.1:{port}"));
    let grants = [by_name.clone(), by_address.clone()];
    let trusting = EgressPolicy::with_roots(&grants, authority()).expect("origins");
    let (status, body) = fetch(&trusting, get(&by_name)).await.expect("authority and name are right");
    assert_eq!((status, body.as_ref()), (StatusCode::OK, &b"ok"[..]));
    let wrong_name = refusal(&trusting, get(&by_address)).await;
    assert!(matches!(wrong_name, Error::TlsCertificateError), "{wrong_name:?}");
    let public = EgressPolicy::from_grants(&grants).expect("origins");
    let unknown_authority = refusal(&public, get(&by_name)).await;
    assert!(matches!(unknown_authority, Error::TlsCertificateError), "{unknown_authority:?}");
}
