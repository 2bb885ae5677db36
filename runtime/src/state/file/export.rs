//! Exporting: from a view of an engine to a file.

use std::io::Write;

use hvm_types::ReplicaId;

use super::check::each_part;
use super::{ExportError, FileHeader, FilePart, FileSummary, FileWriter, Origin};
use crate::state::Scan;

/// Writes all that a view of a partition holds. Commands go on beside it.
///
/// # Errors
/// See [`ExportError`]; what was written is no whole file then.
pub fn export<W: Write>(
    scan: &dyn Scan,
    partition: &ReplicaId,
    origin: Origin,
    out: W,
) -> Result<(W, FileSummary), ExportError> {
    let header = FileHeader { partition: partition.clone(), origin, head: scan.head()? };
    let head = header.head.clone();
    let mut file = FileWriter::begin(out, header)?;
    each_part(scan, |part| {
        match part {
            FilePart::Entries { bucket, entries } => {
                entries.iter().try_for_each(|(key, value)| file.entry(&bucket, key, value))?;
            }
            FilePart::Answers(answers) => answers.iter().try_for_each(|answer| file.answer(answer))?,
        }
        Ok::<(), ExportError>(())
    })?;
    // A file whose counts don't fit would be refused by its reader, so none is made.
    file.counts().compare(&head).map_err(|what| ExportError::Corrupt { what })?;
    Ok(file.finish()?)
}
