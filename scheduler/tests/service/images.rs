//! Blobs and images: taken whole and right, or not at all.

use std::sync::Arc;

use hvm_api::v1::put_blob_request::Part;
use hvm_api::{ErrorKind, Failure, v1};
use hvm_scheduler::SchedulerConfig;
use hvm_types::{Capability, Digest, ImageConfig};

use super::fake::{FakeImage, Town, blob, shop};

async fn missing(town: &mut Town, image: &FakeImage) -> v1::FindMissingBlobsResponse {
    let blobs = image.blobs.iter().map(|bytes| blob(bytes)).collect();
    let request = v1::FindMissingBlobsRequest { blobs };
    town.control.find_missing_blobs(request).await.expect("an answer").into_inner()
}

#[tokio::test]
async fn only_what_is_missing_is_asked_for() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let image = shop();
    assert_eq!(missing(&mut town, &image).await.missing.len(), 3);
    town.put_blob(&image.blobs[0]).await.expect("it is right");
    assert_eq!(missing(&mut town, &image).await.missing, [blob(&image.blobs[1]), blob(&image.blobs[2])]);
    let early = town.control.put_image(image.message()).await.expect_err("two blobs are missing");
    let failure = Failure::from(&early);
    assert_eq!((failure.kind, failure.lines.len()), (ErrorKind::Invalid, 2));
    assert!(failure.lines.iter().all(|line| line.contains("is not here")), "{failure}");
    town.push(&image).await;
    assert!(missing(&mut town, &image).await.missing.is_empty());
    let request = v1::GetImageRequest { manifest: image.manifest.to_string() };
    let stored = town.control.get_image(request).await.expect("it is there").into_inner();
    assert_eq!((stored.app.as_str(), stored.version.as_str()), ("shop", "1.0.0"));
    assert_eq!(stored.index, image.index.as_bytes());
    town.handle.shutdown().await;
}

#[tokio::test]
async fn an_interrupted_blob_is_continued() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let head = || Part::Blob(blob(&bytes));
    let cut = town.send(vec![head(), Part::Data(bytes[..150_000].to_vec())]).await;
    assert_eq!(Failure::from(&cut.expect_err("half of it")).kind, ErrorKind::Unavailable);
    let request = v1::FindMissingBlobsRequest { blobs: vec![blob(&bytes)] };
    let answer = town.control.find_missing_blobs(request).await.expect("an answer").into_inner();
    let partial = v1::PartialBlob { digest: blob(&bytes).digest, received: 150_000 };
    assert_eq!((answer.missing.len(), &answer.partial[..]), (1, &[partial][..]));
    let resume = v1::BlobResume { blob: Some(blob(&bytes)), offset: 150_000 };
    town.send(vec![Part::Resume(resume), Part::Data(bytes[150_000..].to_vec())]).await.expect("the rest");

    for offset in [0, 1, 399_999, 400_000] {
        let request = v1::GetBlobRequest { digest: blob(&bytes).digest, offset };
        let mut stream = town.control.get_blob(request).await.expect("it is there").into_inner();
        let mut got = Vec::new();
        while let Some(chunk) = stream.message().await.expect("no error") {
            got.extend(chunk.data);
        }
        assert_eq!(got, bytes[usize::try_from(offset).expect("small")..]);
    }
    let beyond = v1::GetBlobRequest { digest: blob(&bytes).digest, offset: 400_001 };
    assert!(town.control.get_blob(beyond).await.is_err());
    town.handle.shutdown().await;
}

#[tokio::test]
async fn bytes_that_are_not_what_was_named_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let wrong = || Part::Data(b"jello".to_vec());
    let long = || Part::Data(b"hello world".to_vec());
    let huge = v1::Blob { size: u64::MAX, ..blob(b"hello") };
    let cases = [
        (vec![Part::Blob(blob(b"hello")), wrong()], "what arrived is"),
        (vec![Part::Blob(blob(b"hello")), long()], "more than its 5 bytes"),
        (vec![Part::Blob(huge)], "are more than"),
        (vec![wrong()], "the first message names a blob"),
        (vec![], "no blob was named"),
        (vec![Part::Blob(blob(b"hello")), Part::Data(vec![0; 300 << 10])], "are more than"),
    ];
    for (parts, expected) in cases {
        let failure = Failure::from(&town.send(parts).await.expect_err(expected));
        assert_eq!(failure.kind, ErrorKind::Invalid);
        assert!(failure.to_string().contains(expected), "{failure}");
    }
    let request = v1::FindMissingBlobsRequest { blobs: vec![blob(b"hello")] };
    let answer = town.control.find_missing_blobs(request).await.expect("an answer").into_inner();
    assert_eq!(answer.missing.len(), 1);
    town.handle.shutdown().await;
}

#[tokio::test]
async fn parts_that_do_not_belong_together_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut town = Town::start(directory.path()).await;
    let (one, other) = (shop(), FakeImage::new("2.0.0", 1, &[Capability::Keyvalue]));
    town.push(&one).await;
    town.push(&other).await;
    let config: ImageConfig = serde_json::from_slice(&one.blobs[1]).expect("a config");
    let foreign = FakeImage::of(&config, b"another component");
    for bytes in &foreign.blobs {
        town.put_blob(bytes).await.expect("it is right");
    }
    let json = |message: v1::Image, index: &str| v1::Image { index: index.as_bytes().to_vec(), ..message };
    let stranger = Digest::of(b"stranger");
    let cases = [
        (v1::Image { config: other.config.to_string(), ..one.message() }, "names the config"),
        (
            v1::Image { index: other.index.clone().into_bytes(), ..one.message() },
            "does not list the manifest",
        ),
        (json(one.message(), "{"), "its index is not as it must be"),
        (
            json(one.message(), &one.index.replace("[{", &format!("[{{\"digest\":\"{stranger}\"}},{{"))),
            "which does not belong to it",
        ),
        (foreign.message(), "its config names"),
        (v1::Image { manifest: "sha256:1".to_owned(), ..one.message() }, "field manifest"),
    ];
    for (message, expected) in cases {
        let failure = Failure::from(&town.control.put_image(message).await.expect_err(expected));
        assert_eq!(failure.kind, ErrorKind::Invalid);
        assert!(failure.to_string().contains(expected), "{expected}: {failure}");
    }
    town.handle.shutdown().await;
}

#[tokio::test]
async fn an_image_that_the_own_check_refuses_is_not_taken() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut config = SchedulerConfig::new(directory.path());
    config.image_check = Some(Arc::new(|image, root| {
        assert!(root.join("blobs/sha256").join(image.config.to_hex()).is_file());
        if image.version.major == 1 { Ok(()) } else { Err("nobody signed it".to_owned()) }
    }));
    let mut town = Town::start_config(config).await;
    town.push(&shop()).await;
    let refused = FakeImage::new("2.0.0", 1, &[]);
    for bytes in &refused.blobs {
        town.put_blob(bytes).await.expect("it is right");
    }
    let failure = Failure::from(&town.control.put_image(refused.message()).await.expect_err("unsigned"));
    assert_eq!(failure, Failure::new(ErrorKind::Invalid, "nobody signed it"));
    let images = town.control.list_images(v1::ListImagesRequest {}).await.expect("an answer").into_inner();
    assert_eq!(images.images.len(), 1);
    town.handle.shutdown().await;
}
