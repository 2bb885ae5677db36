//! The entries of an `.aimg` file: POSIX ustar headers (IEEE 1003.1, "pax", ustar Interchange Format).
//!
//! Each entry has exactly one encoding: no owner, no time, no links, no extensions. A header that differs from
//! it in one bit is refused, so that two readers can never see two different images in one file.

use std::fmt;

use hvm_types::Digest;

use crate::read_error::ReadError;

/// Size of a header, and what contents are padded to.
pub(crate) const BLOCK_BYTES: usize = 512;
/// [`BLOCK_BYTES`], for positions in files.
pub(crate) const BLOCK: u64 = 512;
/// The largest size that a ustar header can say: eleven octal digits.
const MAX_SIZE: u64 = (1 << 33) - 1;

/// An entry that an AppImage may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// `oci-layout`
    Layout,
    /// `index.json`
    Index,
    /// `blobs/sha256/<hex>`
    Blob(Digest),
}

impl Entry {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "oci-layout" => Some(Self::Layout),
            "index.json" => Some(Self::Index),
            _ => format!("sha256:{}", name.strip_prefix("blobs/sha256/")?).parse().ok().map(Self::Blob),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout => f.write_str("oci-layout"),
            Self::Index => f.write_str("index.json"),
            Self::Blob(digest) => write!(f, "blobs/sha256/{}", digest.to_hex()),
        }
    }
}

/// The header of an entry.
///
/// # Panics
/// Where `size` exceeds what the format can say; the limits of an image are below that.
pub(crate) fn header(entry: Entry, size: u64) -> [u8; BLOCK_BYTES] {
    assert!(size <= MAX_SIZE, "contents are bounded below 8 GiB");
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, &entry.to_string());
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    put(329, "0000000");
    put(337, "0000000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Reads a header that stands at `offset` of the file.
pub(crate) fn parse_header(block: &[u8; BLOCK_BYTES], offset: u64) -> Result<(Entry, u64), ReadError> {
    if &block[257..262] != b"ustar" {
        return Err(if offset == 0 {
            ReadError::NotAnAppImage { reason: "it does not begin as a tar file does".to_owned() }
        } else {
            ReadError::Damaged { offset, reason: "no tar header stands here" }
        });
    }
    let name_length = block[..100].iter().position(|byte| *byte == 0).unwrap_or(100);
    let name = String::from_utf8_lossy(&block[..name_length]);
    let forbidden =
        |reason| ReadError::ForbiddenEntry { name: name.escape_debug().take(120).collect(), offset, reason };
    if block[156] != b'0' {
        return Err(forbidden("only regular files are"));
    }
    let entry = Entry::from_name(&name)
        .ok_or_else(|| forbidden("only oci-layout, index.json and blobs/sha256/<64 hex digits> are"))?;
    let size = std::str::from_utf8(&block[124..135])
        .ok()
        .and_then(|text| u64::from_str_radix(text, 8).ok())
        .filter(|size| *size <= MAX_SIZE)
        .ok_or(ReadError::Damaged { offset, reason: "the size in the tar header is no octal number" })?;
    if *block != header(entry, size) {
        let reason = "the tar header is not as appimage-tool writes it";
        return Err(ReadError::Damaged { offset, reason });
    }
    Ok((entry, size))
}

/// The number of zero bytes behind a content of this size.
pub(crate) const fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let entry = Entry::Blob(Digest::of(b"x"));
        let good = header(entry, 12_345);
        assert_eq!(parse_header(&good, 512).expect("our own header"), (entry, 12_345));
        for bit in 0..BLOCK_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            // A flipped size or name with the old checksum can't be canonical either.
            parse_header(&bad, 512).expect_err("a flipped bit was taken");
        }
    }

    #[test]
    fn the_padding_fills_the_last_block() {
        assert_eq!((padding(0), padding(1), padding(512), padding(513)), (0, 511, 0, 511));
    }
}
