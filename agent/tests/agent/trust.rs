//! Nothing unverified is compiled or run.

use std::path::Path;
use std::sync::Arc;

use guests_path::Guest;
use hvm_appimage::DirSource;
use hvm_types::{Capability, Digest, ReplicaState};

use crate::support::{Host, Image, Keys, Scheduler, assignments, document};

/// The reason that the one partition's report gives once it has failed.
async fn failure(scheduler: &Scheduler) -> String {
    let failed = |state: Option<&ReplicaState>| matches!(state, Some(ReplicaState::Failed { .. }));
    let reported = scheduler.reported("a", |reported| failed(reported.state("shop/parts/0"))).await;
    reported.state("shop/parts/0").expect("reported").to_string()
}

async fn failure_of(image: &Image, policy: Option<&Keys>) -> String {
    let scheduler = Scheduler::start().await;
    scheduler.put_image(image);
    let mut host = Host::started("a", &scheduler.url(), policy.map(Keys::policy)).await;
    scheduler.put_document("a", document(1, assignments(0..1, 1, image.manifest()), 1, &[host.entry()]));
    let reason = failure(&scheduler).await;
    assert_eq!(files_below(&host.data().join("code")), 0, "something was compiled");
    let answer = host.client().get("/kv/get?k=n").await;
    assert_eq!((answer.status.as_u16(), answer.error("kind").as_str()), (503, "starting"));
    host.stop().await;
    reason
}

fn files_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("the code cache");
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
        .sum()
}

#[tokio::test]
async fn an_image_that_nobody_signed_is_refused_and_nothing_is_compiled() {
    let image = Image::new(Guest::Probe, "1.0.0", &Capability::ALL, None);
    let reason = failure_of(&image, Some(&Keys::new())).await;
    assert!(reason.contains("not signed"), "{reason}");
}

#[tokio::test]
async fn an_image_signed_with_an_unknown_key_is_refused_and_nothing_is_compiled() {
    let image = Image::probe("1.0.0", &Keys::new());
    let reason = failure_of(&image, Some(&Keys::new())).await;
    assert!(reason.contains("trust policy does not name"), "{reason}");
}

#[tokio::test]
async fn without_a_trust_policy_nothing_runs_and_the_state_says_so() {
    let image = Image::probe("1.0.0", &Keys::new());
    let reason = failure_of(&image, None).await;
    assert!(reason.contains("no trust policy"), "{reason}");
}

#[tokio::test]
async fn an_image_that_asks_for_more_than_is_granted_is_refused_by_the_capabilitys_name() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    let mut wanted = assignments(0..1, 1, image.manifest());
    Arc::make_mut(&mut wanted[0].task).grants.http = Vec::new();
    scheduler.put_document("a", document(1, wanted, 1, &[host.entry()]));
    let reason = failure(&scheduler).await;
    assert!(reason.contains("outgoing-http") && reason.contains("does not grant"), "{reason}");
    assert_eq!(files_below(&host.data().join("code")), 0, "something was compiled");
    host.stop().await;
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_right_ones_are_taken_when_they_come() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    scheduler.damage(vec![component(&image)]);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    scheduler.put_document("a", document(1, assignments(0..1, 1, image.manifest()), 1, &[host.entry()]));
    let reason = failure(&scheduler).await;
    assert!(reason.contains("wrong content"), "{reason}");
    assert!(!DirSource::blob_path(&host.data().join("images"), component(&image)).exists());
    scheduler.damage(Vec::new());
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    host.stop().await;
}

#[tokio::test]
async fn a_fetch_that_broke_off_goes_on_where_it_stopped() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    scheduler.break_off_once(component(&image));
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    scheduler.put_document("a", document(1, assignments(0..1, 1, image.manifest()), 1, &[host.entry()]));
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    let offsets = scheduler.offsets(component(&image));
    assert!(matches!(offsets[..], [0, later] if later > 0), "{offsets:?}");
    host.stop().await;
}

#[tokio::test]
async fn a_blob_that_the_disk_damaged_is_fetched_again() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    scheduler.put_document("a", document(1, assignments(0..1, 1, image.manifest()), 1, &[host.entry()]));
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    host.stop().await;

    let path = DirSource::blob_path(&host.data().join("images"), component(&image));
    let mut bytes = std::fs::read(&path).expect("the component");
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).expect("damaged");
    scheduler.forget_reports("a");
    host.start().await;
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    assert_eq!(scheduler.offsets(component(&image)), [0, 0]);
    host.stop().await;
}

/// The component: the longest blob.
fn component(image: &Image) -> Digest {
    let longest = image.blobs.iter().max_by_key(|(blob, _)| blob.size);
    longest.expect("an image has blobs").0.digest
}

#[tokio::test]
async fn two_uses_of_one_image_fetch_its_blobs_once() {
    let (keys, scheduler) = (Keys::new(), Scheduler::start().await);
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    let mut host = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    let mut both = assignments(0..2, 1, image.manifest());
    // Refused, because the image asks for it; but prepared apart from the other, and at the same time.
    Arc::make_mut(&mut both[1].task).grants.logging = false;
    scheduler.put_document("a", document(1, both, 2, &[host.entry()]));
    let is_over = |state: Option<&ReplicaState>| {
        state.is_some_and(|state| state.serves() || matches!(state, ReplicaState::Failed { .. }))
    };
    scheduler
        .reported("a", |reported| {
            is_over(reported.state("shop/parts/0")) && is_over(reported.state("shop/parts/1"))
        })
        .await;
    for blob in &image.document.blobs {
        assert_eq!(scheduler.offsets(blob.digest), [0], "{}", blob.digest);
    }
    host.stop().await;
}
