//! Importing: from a file into an engine. Nothing can be seen of it until the file has ended and is whole.

use std::io::Read;

use super::{FileImportError, FilePart, FileReader, FileSummary};
use crate::state::{Import, ImportHead, ScanHead};

/// Reads a file to its end into an import, which the caller then finishes with
/// `&summary.header.head` as [`ImportHead`].
///
/// # Errors
/// See [`FileImportError`]; the import is to be dropped then.
pub fn import<R: Read>(
    file: &mut FileReader<R>,
    import: &mut dyn Import,
) -> Result<FileSummary, FileImportError> {
    while let Some(part) = file.next_part()? {
        match part {
            FilePart::Entries { bucket, entries } => import.put(&bucket, entries)?,
            FilePart::Answers(answers) => import.put_answers(answers)?,
        }
    }
    Ok(file.summary().expect("a file that has ended has a summary").clone())
}

impl From<&ScanHead> for ImportHead {
    fn from(head: &ScanHead) -> Self {
        Self {
            sequence: head.sequence,
            unix_millis: head.unix_millis,
            schema: head.schema,
            meter: head.meter.clone(),
        }
    }
}
