//! Capabilities: what is not granted is refused by name before anything runs, and what is granted works.

use guests_path::Guest;
use http::Method;
use hvm_runtime::{CompileError, LogLevel, LogSource, OpenError, PartitionSpec};
use hvm_types::{Capability, Grants};

use super::bed::{Bed, all_grants, first, id, read, request};

#[tokio::test]
async fn every_guest_compiles_but_the_one_that_imports_what_nobody_offers() {
    let bed = Bed::new();
    for guest in Guest::ALL {
        let compiled = bed.hvm.compile(read(guest)).await;
        match guest {
            Guest::BadImport => {
                let error = compiled.expect_err("an unknown import");
                assert!(matches!(error, CompileError::UnknownImport { .. }), "{error}");
                assert!(error.to_string().contains("example:unknown/thing"), "{error}");
            }
            Guest::Hello
            | Guest::Flightboard
            | Guest::FlightboardNext
            | Guest::Ledger
            | Guest::Counter
            | Guest::Probe
            | Guest::ProbeWasi
            | Guest::Typed
            | Guest::TypedBoth => drop(compiled.expect("it compiles")),
        }
    }
}

#[tokio::test]
async fn what_is_no_component_is_not_compiled() {
    let bed = Bed::with(|config| config.max_component = hvm_types::ByteSize::kib(256));
    for bytes in [&b""[..], b"#!/bin/sh", b"\0asm\x01\0\0\0"] {
        let error = bed.hvm.compile(bytes.into()).await.expect_err("no component");
        assert!(matches!(error, CompileError::NotAComponent { .. }), "{error}");
    }
    let mut cut = read(Guest::Hello).to_vec();
    cut.truncate(cut.len() / 2);
    assert!(bed.hvm.compile(cut.into()).await.is_err());
    let error = bed.hvm.compile(vec![0; 300 << 10].into()).await.expect_err("too large");
    assert!(matches!(error, CompileError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_capability_that_is_not_granted_is_refused_by_name() {
    let bed = Bed::new();
    let module = bed.module(Guest::Probe).await;
    assert_eq!(module.capabilities(), Capability::ALL.into_iter().collect());
    assert!(module.check(&all_grants()).is_ok());
    let without = |change: fn(&mut Grants)| {
        let mut grants = all_grants();
        change(&mut grants);
        grants
    };
    for (grants, import) in [
        (without(|grants| grants.keyvalue.clear()), "wasi:keyvalue/"),
        (without(|grants| grants.config = false), "wasi:config/store"),
        (without(|grants| grants.logging = false), "wasi:logging/logging"),
        (without(|grants| grants.http.clear()), "wasi:http/outgoing-handler"),
    ] {
        let mut spec = PartitionSpec::new(first(), module.clone());
        spec.grants = grants;
        let error = bed.hvm.open(spec).await.expect_err("not granted");
        assert!(matches!(error, OpenError::NotGranted { .. }), "{error}");
        assert!(error.to_string().contains(import), "{error}");
        assert!(bed.status(&first()).is_none());
    }
}

#[tokio::test]
async fn only_the_granted_store_opens() {
    let bed = Bed::with_probe().await;
    assert_eq!(bed.get("/kv/exists?k=a").await.expect("answered").text(), "false");
    let other = bed.get("/kv/get?k=a&bucket=other").await.expect("answered");
    assert_eq!((other.status(), other.text().contains("access-denied")), (403, true));
}

#[tokio::test]
async fn keys_and_values_have_limits() {
    let bed = Bed::with_probe().await;
    let long_key = "k".repeat(1025);
    let answer = bed.post(&format!("/kv/set?k={long_key}&v=1"), "").await.expect("answered");
    assert!(answer.status() == 500 && answer.text().contains("1024 is the limit"), "{}", answer.text());
    let long_value = vec![b'v'; (1 << 20) + 1];
    let answer = bed.post("/kv/set?k=a", long_value).await.expect("answered");
    assert!(answer.status() == 500 && answer.text().contains("a value of"), "{}", answer.text());
    let answer = bed.post("/kv/fill?n=20&size=1000000", "").await.expect("answered");
    assert!(answer.text().contains("one command writes"), "{}", answer.text());
    assert_eq!(bed.get("/kv/list").await.expect("listed").text(), "");
}

#[tokio::test]
async fn long_listings_come_in_pages() {
    let bed = Bed::with_probe().await;
    bed.post("/kv/fill?n=2500&size=1", "").await.expect("filled");
    let listed = bed.get("/kv/list").await.expect("listed").text();
    assert_eq!(listed.lines().count(), 2500);
    assert_eq!(listed.lines().last(), Some("fill/00002499"));
}

#[tokio::test]
async fn config_is_the_deployments_env() {
    let bed = Bed::new();
    bed.open(&first(), |spec| drop(spec.env.insert("CURRENCY".to_owned(), "EUR".to_owned()))).await;
    assert_eq!(bed.get("/config?k=CURRENCY").await.expect("answered").text(), "EUR");
    assert_eq!(bed.get("/config").await.expect("answered").text(), "CURRENCY=EUR\n");
    assert_eq!(bed.get("/config?k=other").await.expect("answered").status(), 404);
}

#[tokio::test]
async fn what_a_guest_logs_and_prints_are_lines_of_its_partition() {
    let bed = Bed::with_probe().await;
    bed.post("/log?m=first&level=warn", "").await.expect("logged");
    bed.post("/stdout?m=second", "").await.expect("printed");
    bed.get("/stderr?m=third").await.expect("printed");
    let of_guest = bed.lines.all().into_iter().filter(|line| line.source != LogSource::Hvm);
    let lines: Vec<_> = of_guest.map(|line| (line.level, line.source, line.text)).collect();
    assert_eq!(
        lines,
        [
            (LogLevel::Warn, LogSource::Logging, "probe: first".to_owned()),
            (LogLevel::Info, LogSource::Stdout, "second".to_owned()),
            (LogLevel::Warn, LogSource::Stderr, "third".to_owned()),
        ]
    );
}

#[tokio::test]
async fn calling_out_is_refused_in_commands_and_to_origins_that_are_not_granted() {
    let bed = Bed::with_probe().await;
    let command = bed.post("/fetch?url=https://granted.example/", "").await.expect("answered");
    assert_eq!(command.status(), 502);
    assert!(command.text().to_lowercase().contains("denied"), "{}", command.text());
    let elsewhere = bed.get("/fetch?url=https://elsewhere.example/").await.expect("answered");
    assert!(elsewhere.text().to_lowercase().contains("denied"), "{}", elsewhere.text());
}

#[tokio::test]
async fn a_granted_origin_is_called_and_by_commands_where_that_is_granted_too() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.expect("a request");
            assert!(read > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nthis";
            stream.write_all(answer).await.expect("sent");
        }
    });
    let bed = Bed::new();
    let free = id("test/probe/1");
    bed.open(&first(), |spec| spec.grants.http = vec![origin.clone()]).await;
    bed.open(&free, |spec| {
        spec.grants.http = vec![origin.clone()];
        spec.grants.http_in_commands = true;
    })
    .await;
    let path = format!("/fetch?url={origin}/");
    assert_eq!(bed.get(&path).await.expect("called").text(), "200 this");
    assert_eq!(bed.post(&path, "").await.expect("answered").status(), 502);
    let command = bed.request(&free, request(Method::POST, &path, "")).await;
    assert_eq!(command.expect("called").text(), "200 this");
}

#[tokio::test]
async fn wasi_is_there_and_empty() {
    let bed = Bed::new();
    let mut spec = PartitionSpec::new(first(), bed.module(Guest::ProbeWasi).await);
    spec.env.insert("CURRENCY".to_owned(), "EUR".to_owned());
    bed.hvm.open(spec).await.expect("it needs no capability");
    assert_eq!(bed.get("/").await.expect("answered").text(), "probe-wasi\n");
    assert_eq!(bed.get("/file/read?path=/etc/hostname").await.expect("answered").status(), 403);
    assert_eq!(bed.post("/file/write?path=/tmp/x&m=1", "").await.expect("answered").status(), 403);
    assert_eq!(bed.get("/env").await.expect("answered").text(), "CURRENCY=EUR\n");
    assert_eq!(bed.get("/args").await.expect("answered").text(), "");
    assert_eq!(bed.get("/stdout?m=line").await.expect("answered").status(), 204);
    assert!(bed.lines.all().iter().any(|line| line.text == "line" && line.source == LogSource::Stdout));
    assert!(bed.get("/panic?m=the+reason").await.is_err());
    assert!(bed.lines.all().iter().any(|line| line.source == LogSource::Stderr), "{:?}", bed.lines.all());
}
