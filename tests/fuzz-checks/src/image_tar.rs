//! `.aimg` files as bytes: whatever opens has blobs that lie in the file. The input is tried as it is, and
//! with the checksums of its tar headers put right, which no mutation would hit by chance.

use std::io::Read as _;

use hvm_appimage::{BlobSource as _, MAX_INDEX_BYTES, TarSource, UnverifiedImage};

const BLOCK_BYTES: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const SIZE: std::ops::Range<usize> = 124..135;

pub(crate) fn check(input: &[u8]) {
    open(input.to_vec());
    open(with_checksums(input.to_vec()));
}

fn open(tar: Vec<u8>) {
    let length = tar.len() as u64;
    let Ok(source) = TarSource::from_bytes(tar.clone()) else { return };
    let index = source.index().expect("the index lies in the file");
    assert!(index.len() as u64 <= MAX_INDEX_BYTES, "the index has {} bytes", index.len());
    let mut sum = index.len() as u64;
    for digest in source.all_blobs().expect("a file holds one image") {
        let mut blob = source.blob(digest).expect("a listed blob is there");
        let mut bytes = Vec::new();
        blob.reader.read_to_end(&mut bytes).expect("a blob lies in the file");
        assert_eq!(bytes.len() as u64, blob.size, "a blob has another size than it says");
        sum += blob.size;
    }
    assert!(sum <= length, "the contents have {sum} bytes, and the file {length}");
    let Ok(image) = UnverifiedImage::open(source) else { return };
    let listing = image.listing();
    drop(image.claimed_signers());
    let Ok(image) = image.without_signature() else { return };
    let again = UnverifiedImage::open(TarSource::from_bytes(tar).expect("it was opened before"));
    let again = again.and_then(UnverifiedImage::without_signature).expect("it was accepted before");
    assert_eq!(image.config(), again.config(), "an image reads differently the second time");
    assert_eq!(again.listing(), listing, "an image reads differently the second time");
}

fn with_checksums(mut tar: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + BLOCK_BYTES)
        && header[0] != 0
    {
        header[CHECKSUM].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&header[SIZE]).ok();
        let size = size.and_then(|size| usize::from_str_radix(size, 8).ok()).unwrap_or(0);
        at += BLOCK_BYTES + size.next_multiple_of(BLOCK_BYTES);
    }
    tar
}
