//! Images as documents: index, manifests, config, contents and bundles with right digests, so that what
//! stands in them is reached. An accepted image gives every byte it names and reads the same again.
//!
//! The input is parts with a line `--` between them; the last is `index.json`, the others are blobs. In a
//! part, `@n` stands for the digest of the earlier part `n` (one hex digit), `%n` for its hex digits alone and
//! `#n` for its size.

use std::collections::BTreeMap;
use std::sync::Arc;

use hvm_appimage::{
    Blob, BlobSource, Image, ImageBuilder, PackageContent, ReadError, TarSource, UnverifiedImage,
};
use hvm_types::Digest;

const BETWEEN: &[u8] = b"\n--\n";
/// As many as one hex digit tells apart.
const MAX_PARTS: usize = 16;

pub(crate) fn check(input: &[u8]) {
    let source = Arc::new(Documents::read(input));
    let Ok(unverified) = UnverifiedImage::open_shared(source.clone()) else { return };
    let listing = unverified.listing();
    assert_eq!(listing.manifest, unverified.manifest_digest());
    drop(unverified.claimed_signers());
    let Ok(image) = unverified.without_signature() else { return };
    for (digest, size) in &listing.blobs {
        let bytes = source.blobs.get(digest).expect("an accepted image has all its blobs");
        assert_eq!(bytes.len() as u64, *size, "a blob has another size than it says");
    }
    for (name, package) in &image.config().packages {
        let component = image.component(name).expect("an accepted image has its components");
        assert_eq!(Digest::of(&component), package.component);
        for (path, file) in &package.files {
            let bytes = image.file(name, path).expect("an accepted image has its files");
            assert_eq!((Digest::of(&bytes), bytes.len() as u64), (file.digest, file.size));
        }
    }
    let again = UnverifiedImage::open_shared(source).and_then(UnverifiedImage::without_signature);
    let again = again.expect("it was accepted before");
    assert_eq!((again.config(), again.listing()), (image.config(), listing));
    packs_again(&image);
}

/// What was accepted can be packed anew, and the `.aimg` file says the same of itself. Static files stand on
/// the disk when an image is packed, so an image that has any is left out.
fn packs_again(image: &Image) {
    let config = image.config();
    if config.packages.values().any(|package| !package.files.is_empty()) {
        return;
    }
    let mut builder = ImageBuilder::new(config.app.clone(), config.version.clone())
        .state_schema(config.state_schema)
        .migrates_from(config.migrates_from);
    for (name, package) in &config.packages {
        let component = image.component(name).expect("it was read before");
        let content =
            PackageContent { component, capabilities: package.capabilities.clone(), files: BTreeMap::new() };
        // A component that no host would run can't be packed, and is accepted until it is looked at.
        let Ok(next) = builder.package(name.clone(), content) else { return };
        builder = next;
    }
    let bytes = builder.write_bytes().expect("what was accepted is within the limits");
    let packed = UnverifiedImage::open(TarSource::from_bytes(bytes).expect("our own file"));
    let packed = packed.and_then(UnverifiedImage::without_signature).expect("our own image");
    assert_eq!(packed.config(), config, "an image changed by being packed again");
}

/// Blobs and an index in memory.
#[derive(Debug)]
pub(crate) struct Documents {
    index: Vec<u8>,
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Documents {
    fn read(input: &[u8]) -> Self {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut rest = input;
        while parts.len() < MAX_PARTS {
            let end = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN);
            parts.push(filled(&rest[..end.unwrap_or(rest.len())], &parts));
            match end {
                Some(end) => rest = &rest[end + BETWEEN.len()..],
                None => break,
            }
        }
        Self::of(parts)
    }

    /// The last part is the index.
    pub(crate) fn of(mut parts: Vec<Vec<u8>>) -> Self {
        let index = parts.pop().unwrap_or_default();
        let blobs = parts.into_iter().map(|part| (Digest::of(&part), part)).collect();
        Self { index, blobs }
    }
}

/// The text with digests and sizes of earlier parts put in.
pub(crate) fn filled(text: &[u8], parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let digit = text.get(at + 1).and_then(|c| char::from(*c).to_digit(16));
        let part = digit.and_then(|digit| parts.get(usize::try_from(digit).ok()?));
        match (text[at], part) {
            (b'@', Some(part)) => out.extend_from_slice(Digest::of(part).to_string().as_bytes()),
            (b'%', Some(part)) => out.extend_from_slice(Digest::of(part).to_hex().as_bytes()),
            (b'#', Some(part)) => out.extend_from_slice(part.len().to_string().as_bytes()),
            (byte, _) => {
                out.push(byte);
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    out
}

impl BlobSource for Documents {
    fn index(&self) -> Result<Vec<u8>, ReadError> {
        Ok(self.index.clone())
    }

    fn blob(&self, digest: Digest) -> Result<Blob<'_>, ReadError> {
        let bytes = self.blobs.get(&digest).ok_or(ReadError::MissingBlob { digest })?;
        Ok(Blob { size: bytes.len() as u64, reader: Box::new(bytes.as_slice()) })
    }

    fn all_blobs(&self) -> Option<Vec<Digest>> {
        Some(self.blobs.keys().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_the_corpus_are_accepted() {
        let inputs = [
            include_bytes!("../../../fuzz/corpus/image_documents/smallest").as_slice(),
            include_bytes!("../../../fuzz/corpus/image_documents/with-file"),
            include_bytes!("../../../fuzz/corpus/image_documents/signed"),
        ];
        for input in inputs {
            let image = UnverifiedImage::open(Documents::read(input)).expect("it describes an image");
            image.without_signature().expect("it holds what it says");
        }
    }
}
