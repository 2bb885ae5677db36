//! Writes an `.aimg` file: the same blobs always give the same bytes.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hvm_types::Digest;
use sha2::{Digest as _, Sha256};

use crate::blob::BlobSource;
use crate::oci::encode_oci_layout;
use crate::tar::{BLOCK_BYTES, Entry, header, padding};

/// Why an image can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The system refused.
    #[error("cannot write {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A content is not what it was when its digest was taken.
    #[error("{what} changed while it was being packed; try again")]
    Changed {
        /// The content.
        what: String,
    },
    /// A content can't be read any more.
    #[error("cannot read {what}")]
    Content {
        /// The content.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A blob to write: its size, and where its bytes are.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) size: u64,
    pub(crate) bytes: ContentBytes,
}

#[derive(Debug, Clone)]
pub(crate) enum ContentBytes {
    Memory(Arc<[u8]>),
    File(PathBuf),
    Source(Arc<dyn BlobSource>),
}

impl Content {
    pub(crate) fn of(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self { size: bytes.len() as u64, bytes: ContentBytes::Memory(bytes) }
    }
}

/// Writes the file beside its place and renames it there, so that a half-written image is never seen.
pub(crate) fn write_file(
    path: &Path,
    index: &[u8],
    blobs: &BTreeMap<Digest, Content>,
) -> Result<(), WriteError> {
    let io = |source| WriteError::Io { path: path.to_owned(), source };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::Builder::new()
        .prefix(".appimage-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(io)?;
    write(&mut io::BufWriter::with_capacity(64 << 10, temporary.as_file_mut()), index, blobs)
        .map_err(|error| error.at(path))?;
    temporary.as_file().sync_all().map_err(io)?;
    temporary.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

/// Writes the file's bytes to memory.
pub(crate) fn write_bytes(index: &[u8], blobs: &BTreeMap<Digest, Content>) -> Result<Vec<u8>, WriteError> {
    let mut bytes = Vec::new();
    write(&mut bytes, index, blobs).map_err(|error| error.at(Path::new("the image in memory")))?;
    Ok(bytes)
}

enum Failure {
    Output(io::Error),
    Content(WriteError),
}

impl Failure {
    fn at(self, path: &Path) -> WriteError {
        match self {
            Self::Output(source) => WriteError::Io { path: path.to_owned(), source },
            Self::Content(error) => error,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn write(out: &mut dyn Write, index: &[u8], blobs: &BTreeMap<Digest, Content>) -> Result<(), Failure> {
    for (entry, bytes) in [(Entry::Layout, encode_oci_layout().as_slice()), (Entry::Index, index)] {
        out.write_all(&header(entry, bytes.len() as u64))?;
        out.write_all(bytes)?;
        write_padding(out, bytes.len() as u64)?;
    }
    for (digest, content) in blobs {
        out.write_all(&header(Entry::Blob(*digest), content.size))?;
        write_content(out, *digest, content)?;
        write_padding(out, content.size)?;
    }
    out.write_all(&[0; 2 * BLOCK_BYTES])?;
    out.flush()?;
    Ok(())
}

fn write_padding(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let count = usize::try_from(padding(size)).expect("padding is shorter than a block");
    out.write_all(&[0; BLOCK_BYTES][..count])
}

fn write_content(out: &mut dyn Write, digest: Digest, content: &Content) -> Result<(), Failure> {
    let what = match &content.bytes {
        ContentBytes::File(path) => path.display().to_string(),
        ContentBytes::Memory(_) | ContentBytes::Source(_) => format!("blob {digest}"),
    };
    let failed = |source| Failure::Content(WriteError::Content { what: what.clone(), source });
    let mut reader: Box<dyn Read + '_> = match &content.bytes {
        ContentBytes::Memory(bytes) => Box::new(&bytes[..]),
        ContentBytes::File(path) => Box::new(File::open(path).map_err(failed)?),
        ContentBytes::Source(source) => {
            source.blob(digest).map_err(|error| failed(io::Error::other(error)))?.reader
        }
    };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut rest = content.size;
    loop {
        let count = reader.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        // A content that grew must not be written beyond the size that its header says.
        rest = rest
            .checked_sub(count as u64)
            .ok_or_else(|| Failure::Content(WriteError::Changed { what: what.clone() }))?;
        out.write_all(&buffer[..count])?;
    }
    if rest != 0 || Digest::from_bytes(hash.finalize().into()) != digest {
        return Err(Failure::Content(WriteError::Changed { what }));
    }
    Ok(())
}
