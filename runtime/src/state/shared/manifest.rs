//! A log's manifest: what its segments alone no longer say. Only the log's writer puts one, and only the newest
//! counts. And its checkpoints: images of many partitions in one object, each readable alone.

use bytes::Bytes;
use hvm_types::ReplicaId;

use super::names::{LogName, Nonce, Term};
use super::segment::{ImageRef, read_claim, write_claim};
use super::wire::{Broken, Magic, Reader, Writer};

const MANIFEST_MAGIC: Magic = *b"hvmman\0\x01";
const CHECKPOINT_MAGIC: Magic = *b"hvmckp\0\x01";

/// What is kept of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) log: LogName,
    pub(super) number: u64,
    pub(super) nonce: Nonce,
    /// The first segment that is still needed.
    pub(super) first: u64,
    /// The claims whose state does not begin in a segment that is still needed.
    pub(super) kept: Vec<Kept>,
}

/// One claim's state as of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) id: ReplicaId,
    pub(super) term: Term,
    pub(super) claim: Nonce,
    /// The last segment whose entries for the claim are in the image.
    pub(super) through: u64,
    /// Absent where the partition was removed.
    pub(super) image: Option<ImageRef>,
}

impl Manifest {
    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::new(MANIFEST_MAGIC);
        writer.bytes(self.log.as_str().as_bytes()).number(self.number).fixed(&self.nonce.0);
        writer.number(self.first).number(self.kept.len() as u64);
        for kept in &self.kept {
            write_claim(&mut writer, &kept.id, kept.term, kept.claim);
            writer.number(kept.through);
            match &kept.image {
                Some(image) => {
                    writer.byte(1);
                    image.write(&mut writer);
                }
                None => {
                    writer.byte(0);
                }
            }
        }
        writer.finish()
    }

    pub(super) fn decode(object: &Bytes) -> Result<Self, Broken> {
        let mut reader = Reader::open(MANIFEST_MAGIC, object)?;
        let (log, number, nonce) = (reader.parsed()?, reader.number()?, Nonce(reader.fixed()?));
        let first = reader.number()?;
        let kept = reader.list(|reader| {
            let (id, term, claim) = read_claim(reader)?;
            let through = reader.number()?;
            let image = match reader.byte()? {
                0 => None,
                _ => Some(ImageRef::read(reader)?),
            };
            Ok(Kept { id, term, claim, through, image })
        })?;
        reader.end(Self { log, number, nonce, first, kept })
    }
}

/// Makes one object of encoded images. Returns it with the place of each image in it.
pub(super) fn encode_checkpoint(
    number: u64,
    nonce: Nonce,
    images: &[(ReplicaId, Bytes)],
) -> (Bytes, Vec<ImageRef>) {
    let mut writer = Writer::new(CHECKPOINT_MAGIC);
    writer.number(number).fixed(&nonce.0).number(images.len() as u64);
    for (id, image) in images {
        writer.bytes(id.to_string().as_bytes()).number(image.len() as u64);
    }
    let mut places = Vec::with_capacity(images.len());
    for (_, image) in images {
        places.push(ImageRef { checkpoint: number, offset: writer.len(), length: image.len() as u64 });
        writer.fixed(image);
    }
    (writer.finish(), places)
}

#[cfg(test)]
mod tests {
    use hvm_types::Epoch;

    use super::*;

    fn id(index: u32) -> ReplicaId {
        format!("ledger/accounts/{index}").parse().expect("a valid id")
    }

    #[test]
    fn a_manifest_reads_back() {
        let image = ImageRef { checkpoint: 4, offset: 5, length: 6 };
        let kept = |index, image| Kept {
            id: id(index),
            term: Term { epoch: Epoch(2), turn: 1 },
            claim: Nonce([3; 16]),
            through: 9,
            image,
        };
        let manifest = Manifest {
            log: format!("host-{:032x}", 7).parse().expect("a valid log"),
            number: 1,
            nonce: Nonce([2; 16]),
            first: 8,
            kept: vec![kept(0, Some(image)), kept(1, None)],
        };
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
        assert!(Manifest::decode(&manifest.encode().slice(1..)).is_err());
    }

    #[test]
    fn the_images_of_a_checkpoint_stand_where_it_says() {
        let images = [(id(0), Bytes::from_static(b"first")), (id(1), Bytes::from_static(b"second"))];
        let (object, places) = encode_checkpoint(3, Nonce([1; 16]), &images);
        for ((_, image), place) in images.iter().zip(places) {
            let range = usize::try_from(place.offset).expect("small")..;
            assert_eq!(object.slice(range).slice(..image.len()), image);
            assert_eq!((place.checkpoint, place.length), (3, image.len() as u64));
        }
    }
}
