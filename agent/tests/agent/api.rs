//! The agent's API.

use std::sync::Arc;

use hvm_api::v1;
use hvm_api::v1::agent_client::AgentClient;
use tonic::transport::Channel;

use crate::support::{Host, Image, Keys, Scheduler, assignments, document};

async fn connect(host: &Host) -> AgentClient<Channel> {
    let address = format!("http://{}", host.agent().host().api);
    AgentClient::connect(address).await.expect("connected")
}

/// Requests that each partition's meter has counted.
pub(crate) async fn usage(host: &Host) -> Vec<(String, u64)> {
    let request = v1::GetUsageRequest { prefix: "shop".to_owned(), ..Default::default() };
    let answer = connect(host).await.get_usage(request).await.expect("an answer").into_inner();
    let requests = |meter: v1::Meter| hvm_types::Meter::from(meter).requests();
    answer.partitions.into_iter().map(|part| (part.replica, part.meter.map_or(0, requests))).collect()
}

/// What the partitions are doing now.
pub(crate) async fn doing(host: &Host) -> Vec<String> {
    let request = v1::GetPartitionsRequest { prefix: "shop".to_owned() };
    let answer = connect(host).await.get_partitions(request).await.expect("an answer").into_inner();
    answer.partitions.into_iter().flat_map(|part| part.doing).map(|doing| doing.what).collect()
}

/// The last kept lines.
pub(crate) async fn log_texts(host: &Host, prefix: &str, last: u32) -> Vec<String> {
    let request = v1::GetLogsRequest { prefix: prefix.to_owned(), last, follow: false };
    let mut lines = connect(host).await.get_logs(request).await.expect("an answer").into_inner();
    let mut texts = Vec::new();
    while let Some(line) = lines.message().await.expect("a line") {
        texts.push(line.text);
    }
    texts
}

async fn serving(keys: &Keys) -> (Scheduler, Host) {
    let scheduler = Scheduler::start().await;
    let image = Image::probe("1.0.0", keys);
    scheduler.put_image(&image);
    let host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    scheduler.put_document("a", document(1, assignments(0..1, 1, image.manifest()), 1, &[host.entry()]));
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    (scheduler, host)
}

#[tokio::test]
async fn logs_are_shown_stored_and_live_each_line_once() {
    let keys = Keys::new();
    let (_scheduler, mut host) = serving(&keys).await;
    host.client().post("/log?k=n&m=first", "").await;
    let request = v1::GetLogsRequest { prefix: "shop/parts".to_owned(), last: 100, follow: true };
    let mut lines = connect(&host).await.get_logs(request).await.expect("an answer").into_inner();
    host.client().post("/stdout?k=n&m=second", "").await;
    let mut seen: Vec<(String, String)> = Vec::new();
    while !seen.iter().any(|(_, text)| text.contains("second")) {
        let line = lines.message().await.expect("a line").expect("not the end");
        assert_eq!(line.replica, "shop/parts/0");
        seen.push((line.source, line.text));
    }
    let count = |text: &str| seen.iter().filter(|(_, line)| line.contains(text)).count();
    assert_eq!((count("first"), count("second")), (1, 1), "{seen:?}");
    assert!(seen.iter().any(|(source, text)| source == "stdout" && text == "second"), "{seen:?}");
    drop(lines);
    host.stop().await;
}

#[tokio::test]
async fn what_hangs_can_be_seen_while_it_hangs() {
    let keys = Keys::new();
    let (scheduler, mut host) = serving(&keys).await;
    let mut wanted = assignments(0..1, 2, Image::probe("1.0.0", &keys).manifest());
    Arc::make_mut(&mut wanted[0].task).resources.deadline = "3s".parse().expect("a time");
    scheduler.put_document("a", document(2, wanted, 1, &[host.entry()]));
    scheduler.reported("a", |reported| reported.all_ready(1, 2)).await;
    let client = host.client();
    let hanging = tokio::spawn(async move { client.post("/loop?k=n", "").await });
    let found = async {
        loop {
            let request = v1::GetPartitionsRequest { prefix: "shop/parts/0".to_owned() };
            let answer = connect(&host).await.get_partitions(request).await.expect("an answer").into_inner();
            let detail = answer.partitions.into_iter().next().expect("the partition");
            if detail.doing.iter().any(|doing| doing.phase == "guest") {
                break detail;
            }
        }
    };
    let detail = tokio::time::timeout(std::time::Duration::from_secs(60), found).await.expect("it is seen");
    assert_eq!(detail.doing[0].what, "POST /loop");
    hanging.abort();
    let _ = hanging.await; // it was aborted
    host.stop().await;
}

#[tokio::test]
async fn a_selection_that_makes_no_sense_is_refused() {
    let keys = Keys::new();
    let (_scheduler, mut host) = serving(&keys).await;
    let request = v1::GetUsageRequest { prefix: "../etc".to_owned(), ..Default::default() };
    let status = connect(&host).await.get_usage(request).await.expect_err("it is refused");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("deployment/group/number"), "{}", status.message());
    host.stop().await;
}
