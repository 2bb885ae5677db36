//! Images that are right, and what damage does to them.

use hvm_appimage::{
    COMPONENT_TYPE, DirSource, KeyAlgorithm, ReadError, TarSource, UnverifiedImage, VerifyError,
};
use hvm_types::PackageName;
use tempfile::TempDir;

use crate::images::{ImageFile, check, component, key, p256, signed, trust, unsigned, verify};
use crate::raw_tar;

fn web() -> PackageName {
    "web".parse().expect("a name")
}

#[test]
fn a_verified_image_gives_out_what_was_packed() {
    let key = p256();
    let image = verify(&signed(&unsigned(), &[&key]), &trust(&key)).expect("a right image");
    assert_eq!(image.config().app.as_str(), "hello");
    assert_eq!(image.config().version.to_string(), "1.2.3");
    assert_eq!(image.signers(), [key.public().id()]);
    let wasm = component(&["wasi:io/poll@0.2.6", "wasi:keyvalue/store@0.2.0-draft"]);
    assert_eq!(image.component(&web()).expect("the component"), wasm);
    assert_eq!(image.file(&web(), "index.html").expect("the file"), b"<h1>hello</h1>");
    assert_eq!(image.blobs().iter().filter(|blob| blob.media_type == COMPONENT_TYPE).count(), 1);

    let missing = image.component(&"api".parse().expect("a name")).expect_err("no such package");
    assert_eq!(missing.to_string(), "the image has no package api; it has web");
    let missing = image.file(&web(), "../secret").expect_err("no such file");
    assert!(matches!(missing, ReadError::NotInImage { .. }), "{missing}");
}

#[test]
fn a_listing_names_exactly_what_another_host_needs() {
    let key = key(KeyAlgorithm::Ed25519);
    let file = ImageFile::new(&unsigned());
    file.sign(&key);
    let image = UnverifiedImage::open_file(&file.path).expect("a right image");
    let listing = image.listing();

    let store = TempDir::new().expect("a temporary directory");
    let blobs = raw_tar::Layout::of(&file.bytes()).blobs;
    assert_eq!(blobs.len(), listing.blobs.len());
    for (digest, size) in &listing.blobs {
        let blob = &blobs[&digest.to_hex()];
        assert_eq!(blob.len() as u64, *size);
        let path = DirSource::blob_path(store.path(), *digest);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a writable directory");
        std::fs::write(path, blob).expect("a writable directory");
    }
    let source = || DirSource::new(store.path(), listing.index.clone());
    let copy = UnverifiedImage::open(source()).expect("all blobs are there");
    assert_eq!(copy.manifest_digest(), listing.manifest);
    copy.verify(&trust(&key)).expect("the signature came along");

    for (digest, _) in &listing.blobs {
        let path = DirSource::blob_path(store.path(), *digest);
        let content = std::fs::read(&path).expect("the blob is there");
        std::fs::remove_file(&path).expect("a writable directory");
        let error = UnverifiedImage::open(source()).map_err(VerifyError::from);
        let error = error.and_then(|image| image.verify(&trust(&key))).expect_err("a blob is missing");
        assert!(error.to_string().ends_with(&format!("blob {digest} is missing")), "{error}");
        std::fs::write(&path, content).expect("a writable directory");
    }
}

#[test]
fn content_that_changes_after_verification_is_not_given_out() {
    let file = ImageFile::new(&unsigned());
    let bytes = file.bytes();
    let image = UnverifiedImage::open_file(&file.path).expect("a right image");
    let image = image.without_signature().expect("a right image");
    let wasm = image.component(&web()).expect("not changed yet");

    let start = bytes.windows(wasm.len()).position(|window| window == wasm).expect("it is in the file");
    let mut changed = bytes;
    changed[start + 20] ^= 1;
    // In place, as somebody would who has the file open.
    std::fs::write(&file.path, changed).expect("a writable file");
    let error = image.component(&web()).expect_err("it changed");
    assert!(matches!(error, ReadError::DigestMismatch { .. }), "{error}");
}

#[test]
fn a_file_cut_at_any_byte_is_refused_as_truncated() {
    let key = p256();
    let image = signed(&unsigned(), &[&key]);
    for cut in 1..image.len() {
        let error = TarSource::from_bytes(image[..cut].to_vec()).expect_err("a cut file was taken");
        assert!(matches!(error, ReadError::Truncated { .. }), "cut at {cut}: {error}");
    }
    let error = TarSource::from_bytes(Vec::new()).expect_err("an empty file was taken");
    assert_eq!(error.to_string(), "this is not an AppImage: the file is empty");
}

#[test]
fn a_flipped_bit_in_any_byte_is_refused() {
    let key = p256();
    let policy = trust(&key);
    let image = signed(&unsigned(), &[&key]);
    verify(&image, &policy).expect("the image itself is right");
    for at in 0..image.len() {
        let mut flipped = image.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(verify(&flipped, &policy).is_err(), "a flipped bit at byte {at} was taken");
    }
}

#[test]
fn a_flipped_bit_in_any_byte_is_refused_without_a_key_too_outside_the_signature() {
    let image = unsigned();
    check(&image).expect("the image itself is right");
    for at in 0..image.len() {
        let mut flipped = image.clone();
        flipped[at] ^= 0x80 >> (at % 8);
        assert!(check(&flipped).is_err(), "a flipped bit at byte {at} was taken");
    }
}

#[test]
fn other_programs_read_the_file_as_a_tar() {
    let file = ImageFile::new(&unsigned());
    let output = std::process::Command::new("tar").arg("-tvf").arg(&file.path).output();
    let output = output.expect("tar is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listing = String::from_utf8(output.stdout).expect("names in ASCII");
    assert_eq!(listing.lines().count(), raw_tar::entries(&file.bytes()).len());
    assert!(listing.contains("oci-layout") && listing.contains("blobs/sha256/"), "{listing}");
}
