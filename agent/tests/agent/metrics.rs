//! The metrics endpoint, read by a strict reader.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::openmetrics::Exposition;
use crate::support::{Host, Image, Keys, Scheduler, assignments, document, eventually};

/// Asks as a server of metrics does, over HTTP/1.1.
async fn scrape(host: &Host) -> Exposition {
    let address = host.agent().host().api.clone();
    let mut stream = tokio::net::TcpStream::connect(&address).await.expect("connected");
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.lines().any(|line| line == kind), "{head}");
    Exposition::read(body).unwrap_or_else(|wrong| panic!("{wrong}\n{body}"))
}

#[tokio::test]
async fn metrics_are_well_formed_and_a_partition_takes_its_series_along() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    scheduler.put_document("a", document(1, assignments(0..2, 1, image.manifest()), 2, &[host.entry()]));
    scheduler.reported("a", |reported| reported.all_ready(2, 1)).await;
    let client = host.client();
    for _ in 0..3 {
        client.post("/kv/set?k=n", "12345").await;
    }

    let metrics = scrape(&host).await;
    let of = |index| [("deployment", "shop"), ("group", "parts"), ("partition", index)];
    let requests = |metrics: &Exposition, index| {
        let [deployment, group, partition] = of(index);
        metrics.value("hvm_requests_total", &[deployment, group, partition, ("outcome", "succeeded")])
    };
    let counted = [requests(&metrics, "0"), requests(&metrics, "1")].map(|count| count.expect("a row"));
    assert_eq!(counted.iter().sum::<f64>(), 3.0);
    assert_eq!(metrics.value("hvm_partitions", &[("state", "ready")]), Some(2.0));
    let of_group = [("deployment", "shop"), ("group", "parts")];
    assert_eq!(metrics.value("hvm_request_duration_seconds_count", &of_group), Some(3.0));
    assert!(metrics.value("hvm_component_preparation_seconds_count", &[]) >= Some(1.0));
    for metering in ["time", "deterministic"] {
        let free = metrics.value("hvm_pool_places", &[("metering", metering), ("state", "free")]);
        assert!(free > Some(0.0), "{metering}");
        assert_eq!(metrics.value("hvm_pool_waiting_requests", &[("metering", metering)]), Some(0.0));
    }
    let used = |metering| metrics.value("hvm_pool_places", &[("metering", metering), ("state", "used")]);
    assert!(used("time") > Some(0.0), "the instances are not in the pool of those metered by time");
    assert_eq!(used("deterministic"), Some(0.0));
    // Here the agent compiles in its own process.
    for none in ["hvm_compile_processes_total", "hvm_compile_cpu_seconds_total"] {
        assert_eq!(metrics.value(none, &[]), Some(0.0), "{none}");
    }
    for positive in
        ["process_cpu_seconds_total", "process_resident_memory_bytes", "hvm_host_cpu_seconds_total"]
    {
        assert!(metrics.value(positive, &[]) > Some(0.0), "{positive}");
    }

    scheduler.put_document("a", document(2, assignments(0..1, 1, image.manifest()), 1, &[host.entry()]));
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    let host = &host;
    eventually("the series of the partition that left are gone", || async move {
        let metrics = scrape(host).await;
        let left = |key: &(String, Vec<(String, String)>)| {
            key.1.iter().any(|label| label.1 == "1" && label.0 == "partition")
        };
        assert!(requests(&metrics, "0").is_some(), "the other one's are not");
        !metrics.0.keys().any(left)
    })
    .await;
}
