//! Deployments that are refused: where, why, and with nothing written.

use hvm_api::{ErrorKind, Failure, v1};
use hvm_types::{Capability, Digest};

use super::fake::{FakeImage, Town, carts, front, shop};

/// Refused, every line of it naming a place in the file; and forgotten.
async fn refused(town: &mut Town, image: &FakeImage, text: &str, expected: &[&str]) {
    let before = town.status().await;
    let failure = town.deploy(image, text).await.expect_err("it is refused");
    assert_eq!(failure.kind, ErrorKind::Invalid, "{failure}");
    for line in &failure.lines {
        assert!(line.starts_with("app.yaml:"), "{line}");
    }
    for part in expected {
        assert!(failure.to_string().contains(part), "`{part}` is not in `{failure}`");
    }
    assert_eq!(town.status().await, before);
    let plan = town.control.plan(Town::request(image, text)).await.expect_err("a plan refuses the same");
    assert_eq!(Failure::from(&plan), failure);
}

#[tokio::test]
async fn what_is_wrong_in_the_file_is_said_with_its_place() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let image = shop();
    town.push(&image).await;
    let good = carts(16);
    let cases: [(String, &[&str]); 7] = [
        (good.replace("partitions:", "partitons:"), &["app.yaml:7:", "partitons"]),
        (good.replace("memory: 16", "memory: 16 MB"), &["app.yaml:13:", "resources.memory"]),
        (good.replace("partitions: 16", "partitions: 0"), &["app.yaml:7:", "partitions"]),
        (good.replace("partitions: 16", "partitions: 70000"), &["app.yaml:7:", "70000"]),
        (good.replace(", key: { path_segment: 2 }", ""), &["app.yaml:17:", "key"]),
        (String::new(), &["app.yaml:1:1"]),
        ("deployment: [".to_owned(), &["app.yaml:1:"]),
    ];
    for (text, expected) in &cases {
        refused(&mut town, &image, text, expected).await;
    }
    town.handle.shutdown().await;
}

#[tokio::test]
async fn an_image_that_is_not_here_or_not_the_named_one_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let (image, other) = (shop(), FakeImage::new("2.0.0", 1, &[]));
    refused(&mut town, &image, &carts(4), &["app.yaml:2:8: image", "shop.aimg", "hvm image push"]).await;
    town.push(&image).await;
    let named = |name: &str, digest: Digest| carts(4).replace("shop.aimg", &format!("{name}@{digest}"));
    refused(&mut town, &image, &named("shop", other.manifest), &["app.yaml:2:8: image", "was sent"]).await;
    refused(&mut town, &image, &named("ship", image.manifest), &["it names the app `ship`"]).await;
    let unsent = v1::DeployRequest { image: String::new(), ..Town::request(&image, &carts(4)) };
    let failure = Failure::from(&town.control.deploy(unsent).await.expect_err("no image was sent"));
    assert!(failure.to_string().contains("`shop.aimg` was not sent"), "{failure}");
    let by_digest =
        v1::DeployRequest { image: String::new(), ..Town::request(&image, &named("shop", image.manifest)) };
    town.control.deploy(by_digest).await.expect("the digest names it");
    town.handle.shutdown().await;
}

#[tokio::test]
async fn an_image_that_asks_for_more_than_is_granted_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let image =
        FakeImage::new("1.0.0", 1, &[Capability::Keyvalue, Capability::Logging, Capability::OutgoingHttp]);
    town.push(&image).await;
    let expected: &[&str] = &[
        "app.yaml:14:",
        "jobs[0].groups[0].tasks[0].grants: package `carts` asks for `logging`",
        "write `logging: true` under the grants of task `carts`",
        "asks for `outgoing-http`",
    ];
    refused(&mut town, &image, &carts(4), expected).await;
    let granted = carts(4).replace(
        "keyvalue: [default]",
        "keyvalue: [default], logging: true, http: [\"https://rates.example\"]",
    );
    town.deploy(&image, &granted).await.expect("all is granted");
    let unknown = granted.replace("package: carts", "package: cards");
    refused(&mut town, &image, &unknown, &["app.yaml:11:", "no package `cards`", "`carts`"]).await;
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_live_deployment_keeps_its_partitions_its_app_and_its_state() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let image = FakeImage::new("2.0.0", 2, &[]);
    town.push(&image).await;
    town.deploy(&image, &carts(4)).await.expect("it is accepted");
    refused(&mut town, &image, &carts(5), &["app.yaml:7:", "live with 4 partitions"]).await;

    let older = FakeImage::new("1.0.0", 1, &[]);
    town.push(&older).await;
    refused(&mut town, &older, &carts(4), &["app.yaml:2:8: image", "layout 1", "layout 2"]).await;

    let newer = FakeImage::new("3.0.0", 3, &[Capability::Keyvalue]);
    town.push(&newer).await;
    refused(&mut town, &newer, &carts(4), &["app.yaml:2:8: image", "layout 2", "no migration"]).await;

    let mut config: hvm_types::ImageConfig = serde_json::from_slice(&image.blobs[1]).expect("a config");
    config.app = "shed".parse().expect("a valid name");
    let shed = FakeImage::of(&config, &image.blobs[2]);
    town.push(&shed).await;
    refused(&mut town, &shed, &carts(4), &["runs `shop`, and this is `shed`"]).await;
    town.handle.shutdown().await;
}

#[tokio::test]
async fn a_route_that_another_deployment_has_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let image = FakeImage::new("1.0.0", 1, &[]);
    town.push(&image).await;
    town.deploy(&image, &front(1)).await.expect("it is accepted");
    let same = front(1).replace("deployment: front", "deployment: back");
    refused(&mut town, &image, &same, &["routes[0].match", "deployment `front` already takes `/`"]).await;
    let other_host = same.replace("{ prefix: / }", "{ host: back.example, prefix: / }");
    town.deploy(&image, &other_host).await.expect("another host's requests");
    town.handle.shutdown().await;
}
