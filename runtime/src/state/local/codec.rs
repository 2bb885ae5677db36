//! How the engine's own records are written: a version, the fields, a tail of raw bytes, a checksum (XXH3,
//! 64 bits). A record that does not read back exactly is damage.

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 2;
const HEAD_BYTES: usize = 5;
const CHECKSUM_BYTES: usize = 8;

/// A record that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a record of {bytes} bytes {problem}")]
pub(super) struct Damage {
    bytes: usize,
    problem: &'static str,
}

pub(super) fn seal(fields: &impl Serialize, tail: &[u8]) -> Vec<u8> {
    let mut record = vec![VERSION, 0, 0, 0, 0];
    record = postcard::to_extend(fields, record).expect("plain fields always serialize");
    let fields_bytes = u32::try_from(record.len() - HEAD_BYTES).expect("the fields of a record are small");
    record[1..HEAD_BYTES].copy_from_slice(&fields_bytes.to_le_bytes());
    record.extend_from_slice(tail);
    let checksum = xxh3_64(&record);
    record.extend_from_slice(&checksum.to_le_bytes());
    record
}

pub(super) fn unseal<T: DeserializeOwned>(record: &[u8]) -> Result<(T, &[u8]), Damage> {
    let damage = |problem| Damage { bytes: record.len(), problem };
    let (content, checksum) =
        record.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damage("is too short"))?;
    if xxh3_64(content) != u64::from_le_bytes(*checksum) {
        return Err(damage("does not match its checksum"));
    }
    let (head, rest) = content.split_first_chunk::<HEAD_BYTES>().ok_or_else(|| damage("is too short"))?;
    let [version, length @ ..] = *head;
    if version != VERSION {
        return Err(damage("has a version that this program does not know"));
    }
    let length = u32::from_le_bytes(length) as usize;
    let (fields, tail) = rest.split_at_checked(length).ok_or_else(|| damage("is too short"))?;
    match postcard::take_from_bytes(fields) {
        Ok((fields, [])) => Ok((fields, tail)),
        _ => Err(damage("has other fields")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_every_flipped_bit_is_found() {
        let record = seal(&(7_u64, "key".to_owned()), b"body");
        let read: Result<((u64, String), &[u8]), _> = unseal(&record);
        assert_eq!(read, Ok(((7, "key".to_owned()), b"body".as_slice())));
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read: Result<((u64, String), &[u8]), _> = unseal(&damaged);
            assert!(read.is_err(), "bit {bit} was flipped unseen");
        }
        for length in 0..record.len() {
            let read: Result<((u64, String), &[u8]), _> = unseal(&record[..length]);
            assert!(read.is_err(), "cut to {length} bytes unseen");
        }
    }

    #[test]
    fn a_record_with_more_fields_than_are_read_is_damage() {
        let record = seal(&(7_u64, 8_u64), b"body");
        let read: Result<(u64, &[u8]), _> = unseal(&record);
        assert_eq!(read, Err(Damage { bytes: record.len(), problem: "has other fields" }));
    }
}
