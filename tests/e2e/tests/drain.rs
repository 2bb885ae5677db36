//! SIGTERM while requests arrive.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use e2e::{App, Daemon, Role, Workshop, eventually};
use guests_path::Guest;

const CONNECTIONS: usize = 8;

/// Asks on one connection until the server says that it closes it. Every request that was sent is answered.
fn ask_until_closed(address: &str, answered: &AtomicU64) {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut writer = stream;
    loop {
        writer.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").expect("the request is sent");
        let mut status = String::new();
        reader.read_line(&mut status).expect("an answer");
        assert!(status.starts_with("HTTP/1.1 200"), "request was answered with {status:?}");
        let (mut length, mut chunked, mut closes) = (0, false, false);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a header");
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            chunked |= line == "transfer-encoding: chunked";
            closes |= line == "connection: close";
        }
        if chunked {
            read_chunks(&mut reader);
        } else {
            reader.read_exact(&mut vec![0; length]).expect("the whole body");
        }
        answered.fetch_add(1, Ordering::Relaxed);
        if closes {
            return;
        }
    }
}

/// Reads a body in chunks (RFC 9112, section 7.1) to its end.
fn read_chunks(reader: &mut impl BufRead) {
    loop {
        let mut head = String::new();
        reader.read_line(&mut head).expect("a chunk");
        let length = usize::from_str_radix(head.trim(), 16).expect("a chunk's length");
        reader.read_exact(&mut vec![0; length + 2]).expect("the whole chunk");
        if length == 0 {
            return;
        }
    }
}

#[test]
fn a_terminated_server_answers_every_request_that_it_was_sent() {
    let workshop = Workshop::new();
    let _ = workshop.build(&App {
        name: "hello",
        package: "web",
        version: "1.0.0",
        component: Guest::Hello.component(),
        capabilities: &[],
    });
    let file = workshop.write("hello.yaml", include_str!("../../../examples/hello/hello.yaml"));
    let server = Daemon::start(&Role::Dev { trust: workshop.trust() }, &workshop.path("data"));
    server.deploy(&file);
    let address = server.ingress.trim_start_matches("http://").to_owned();
    let answered = Arc::new(AtomicU64::new(0));
    let askers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (address, answered) = (address.clone(), Arc::clone(&answered));
            std::thread::spawn(move || ask_until_closed(&address, &answered))
        })
        .collect();
    eventually("requests are being answered", || {
        let now = answered.load(Ordering::Relaxed);
        if now > 500 { Ok(()) } else { Err(now.to_string()) }
    });
    assert_eq!(server.terminate(), 0);
    for asker in askers {
        asker.join().expect("every request was answered");
    }
}
