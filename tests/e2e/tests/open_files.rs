//! Clients that open more connections than the server may have files open.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use e2e::{App, Client, Heard, Role, Starting, Workshop};
use guests_path::Guest;

const HELLO: &str = "deployment: hello\nimage: hello-1.0.0.aimg\njobs:\n- name: hello\n  groups:\n  - name: web\n    \
                     replicas: 1\n    tasks:\n    - { name: web, driver: app-partition, config: { package: web } }\n\
                     routes:\n- { match: { prefix: / }, group: web }\n";
/// The fewest that a server starts with.
const FILES: u32 = 256;
const HALF_SENT: usize = 400;
/// A line for each connection would be far more.
const MOST_LOG_LINES: usize = 40;

/// Clients that send a part of a head and then nothing.
fn half_sent(server: &str, part: &[u8]) -> Vec<TcpStream> {
    let address = server.trim_start_matches("http://");
    let client = |_| {
        let mut stream = TcpStream::connect(address).expect("a connection");
        // It may be closed by now, in favour of a later one.
        let _ = stream.write_all(part);
        stream
    };
    (0..HALF_SENT).map(client).collect()
}

#[test]
fn clients_that_take_every_connection_keep_neither_the_operator_nor_other_clients_out() {
    let workshop = Workshop::new();
    let _ = workshop.build(&App {
        name: "hello",
        package: "web",
        version: "1.0.0",
        component: Guest::Hello.component(),
        capabilities: &[],
    });
    let hello = workshop.write("hello.yaml", HELLO);
    let role = Role::Dev { trust: workshop.trust() };
    let mut starting = Starting::spawn_with_files(FILES, &role, &workshop.path("data"));
    assert_eq!(starting.listen(Duration::from_secs(60)), Heard::Serving, "{}", starting.silence());
    assert!(starting.log().contains("at most 256 open files"), "{}", starting.log());
    let log = workshop.path("data.log");
    let server = starting.into_daemon();
    server.deploy(&hello);

    let url = format!("{}/", server.ingress);
    let unused = half_sent(&server.ingress, b"");
    let begun = half_sent(&server.ingress, b"GET / HTTP/1.1\r\nHost: a");
    let kept = half_sent(&server.ingress, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let http2 = half_sent(&server.ingress, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    for _ in 0..3 {
        let _ = client_of_its_own(&url);
        assert_eq!(server.status()[0]["deployment"], "hello");
    }
    drop((unused, begun, kept, http2));
    let bodies = half_sent(&server.ingress, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\na");
    let _ = client_of_its_own(&url);
    assert_eq!(server.status()[0]["deployment"], "hello");
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("its files").count();
    assert!(open < FILES as usize * 3 / 4, "{open} files are open: too little is left for others");
    drop(bodies);
    let _ = client_of_its_own(&url);
    assert_eq!(server.terminate(), 0);
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(log.lines().count() <= MOST_LOG_LINES, "{log}");
}

/// What a client gets that has no connection yet.
fn client_of_its_own(url: &str) -> String {
    Client::new().get(url).expect("an answer").ok()
}

#[test]
fn a_server_that_may_open_too_few_files_says_what_to_change() {
    let workshop = Workshop::new();
    let role = Role::Dev { trust: workshop.trust() };
    let mut starting = Starting::spawn_with_files(FILES - 1, &role, &workshop.path("data"));
    assert_eq!(starting.listen(Duration::from_secs(60)), Heard::Ended);
    assert!(starting.log().contains("run `ulimit -n 16384`"), "{}", starting.log());
}
