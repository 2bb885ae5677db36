//! `appimage-tool run`: an image served on this machine.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use guests_path::Guest;

use crate::workbench::Workbench;

/// Far more than any request here needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `appimage-tool run`.
struct Server {
    child: Child,
    address: SocketAddr,
    /// What it said when it began to serve.
    greeting: String,
}

impl Server {
    fn start(place: &Workbench, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_appimage-tool"))
            .arg("run")
            .args(arguments)
            .args(["--listen", "127.0.0.1:0"])
            .current_dir(place.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool starts");
        let mut greeting = String::new();
        let stdout = child.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout).read_line(&mut greeting).expect("UTF-8");
        let address = greeting.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.and_then(|address| address.parse().ok());
        let Some(address) = address else { panic!("it does not serve: {greeting}{}", finish(child).1) };
        Self { child, address, greeting }
    }

    /// Sends a request and returns the status and the body.
    fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .expect("it reads");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("it answers in UTF-8");
        let status = response.get(9..12).and_then(|status| status.parse().ok());
        let body = response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        status.zip(body).unwrap_or_else(|| panic!("no HTTP: {response}"))
    }

    /// Asks it to end, as Ctrl-C does; returns the exit code and standard error.
    fn interrupt(self) -> (Option<i32>, String) {
        let kill = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(kill.expect("kill is there").success());
        finish(self.child)
    }
}

fn finish(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_signed_image_is_served_until_it_is_interrupted() {
    let place = Workbench::new();
    place.signed_hello();
    let server = Server::start(&place, &["hello.aimg", "--trust", "author.pub"]);
    assert!(server.greeting.starts_with("hello 1.0.0 (signature verified) on http://127.0.0.1:"));
    assert_eq!(server.request("GET", "/", ""), (200, "hello\n".to_owned()));
    assert_eq!(server.request("GET", "/nothing", "").0, 404);
    assert_eq!(server.interrupt(), (Some(0), String::new()));
}

#[test]
fn state_is_there_again_after_a_restart_with_the_same_directory() {
    let place = Workbench::new();
    place.app("ledger", Guest::Ledger, "[\"keyvalue\"]");
    place.done(&["pack", "ledger", "--out", "ledger.aimg"]);
    let transfer = r#"{"from":"bank","to":"ann","amount":5}"#;
    for balance in [5, 10] {
        let server = Server::start(&place, &["ledger.aimg", "--data", "data"]);
        assert!(server.greeting.contains("(signature not checked)"), "{}", server.greeting);
        assert_eq!(server.request("POST", "/books/b/transfers", transfer).0, 201);
        let (status, account) = server.request("GET", "/books/b/accounts/ann", "");
        assert_eq!((status, account), (200, format!("{{\"account\":\"ann\",\"balance\":{balance}}}")));
        assert_eq!(server.interrupt().0, Some(0));
    }
    let server = Server::start(&place, &["ledger.aimg"]);
    let (_, account) = server.request("GET", "/books/b/accounts/ann", "");
    assert_eq!(account, r#"{"account":"ann","balance":0}"#, "another place, another state");
    server.interrupt();
}

#[test]
fn a_guest_gets_what_it_requests_and_its_failures_become_answers() {
    let place = Workbench::new();
    place.app("probe", Guest::Probe, r#"["keyvalue", "config", "logging", "outgoing-http"]"#);
    place.done(&["pack", "probe", "--out", "probe.aimg"]);
    let server = Server::start(
        &place,
        &["probe.aimg", "--env", "COLOUR=deep=blue", "--http", "https://rates.example"],
    );
    let (status, value) = server.request("GET", "/config?k=COLOUR", "");
    assert!(status == 200 && value.contains("deep=blue"), "{status} {value}");
    assert_eq!(server.request("GET", "/log?m=from-the-guest", "").0, 204);
    let (status, reason) = server.request("GET", "/trap", "");
    assert!(status == 500 && reason.contains("the guest was stopped"), "{status} {reason}");
    assert_eq!(
        server.request("POST", "/echo", "still here").0,
        200,
        "a trap ends an instance, not the server"
    );
    let (code, log) = server.interrupt();
    assert_eq!(code, Some(0));
    assert!(
        log.lines().any(|line| line.starts_with("probe/web/0 ") && line.contains("from-the-guest")),
        "{log}"
    );
}

#[test]
fn what_cannot_be_run_is_refused_before_it_serves() {
    let place = Workbench::new();
    place.signed_hello();
    place.done(&["keygen", "--out", "other"]);
    let error = place.refused(&["run", "hello.aimg", "--listen", "127.0.0.1:0", "--trust", "other.pub"]);
    assert!(error.contains("hello.aimg: the image is signed by key"), "{error}");
    let error = place.refused(&["run", "hello.aimg", "--listen", "127.0.0.1:0", "--package", "api"]);
    assert!(error.contains("the image has no package api; it has web"), "{error}");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let error = place.refused(&["run", "hello.aimg", "--listen", &address]);
    assert!(error.contains(&format!("error: cannot listen on {address}: ")), "{error}");
    assert!(error.contains("hint: choose another address"), "{error}");

    place.app("probe", Guest::Probe, r#"["keyvalue", "config", "logging", "outgoing-http"]"#);
    place.done(&["pack", "probe", "--out", "probe.aimg"]);
    let error = place.refused(&["run", "probe.aimg", "--listen", "127.0.0.1:0"]);
    assert!(error.contains("hint: name the origins that it may call"), "{error}");

    for wrong in [&["--env", "novalue"][..], &["--listen", "8080"]] {
        let output = place.tool(&[&["run", "hello.aimg"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}
