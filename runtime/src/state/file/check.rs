//! Checking without changing anything: a file, or all that an engine holds of a partition.

use std::io::Read;

use hvm_types::Sequence;

use super::header::Counts;
use super::{FileError, FilePart, FileReader, FileSummary};
use crate::state::{ReadError, Scan, ScanHead};

/// Bytes of a partition that are read at a time.
const PAGE_BYTES: usize = 1 << 20;

/// Reads a file to its end.
///
/// # Errors
/// Where it is not whole; see [`FileError`].
pub fn verify(from: impl Read) -> Result<FileSummary, FileError> {
    let mut file = FileReader::begin(from)?;
    while file.next_part()?.is_some() {}
    Ok(file.summary().expect("a file that has ended has a summary").clone())
}

/// Reads every key and every answer of a partition and compares them with what it counts. Returns its numbers
/// and how many keys it has.
///
/// # Errors
/// [`ReadError::Corrupt`] where something is damaged, missing or too much.
pub fn check(scan: &dyn Scan) -> Result<(ScanHead, u64), ReadError> {
    let head = scan.head()?;
    let corrupt = |what: String| ReadError::Corrupt { what };
    let mut counts = Counts::default();
    let mut last_answer = None;
    each_part(scan, |part| {
        match part {
            FilePart::Entries { entries, .. } => {
                counts.entries += entries.len() as u64;
                counts.stored += entries.iter().map(|(k, value)| (k.len() + value.len()) as u64).sum::<u64>();
            }
            FilePart::Answers(answers) => {
                counts.answers += answers.len() as u64;
                for answer in answers {
                    let last: Option<Sequence> = last_answer.replace(answer.sequence);
                    if last.is_some_and(|last| last >= answer.sequence) || answer.sequence > head.sequence {
                        let key = &answer.idempotency.key;
                        return Err(corrupt(format!("the answer of key `{key}` is out of order")));
                    }
                }
            }
        }
        Ok(())
    })?;
    counts.compare(&head).map_err(corrupt)?;
    Ok((head, counts.entries))
}

/// Passes on all that a view holds, in the order of a file.
pub(super) fn each_part<E: From<ReadError>>(
    scan: &dyn Scan,
    mut pass: impl FnMut(FilePart) -> Result<(), E>,
) -> Result<(), E> {
    for bucket in scan.buckets()? {
        let mut cursor: Option<String> = None;
        loop {
            let page = scan.entries(&bucket, cursor.as_deref(), PAGE_BYTES)?;
            if !page.entries.is_empty() {
                pass(FilePart::Entries { bucket: bucket.clone(), entries: page.entries })?;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    let mut cursor = None;
    loop {
        let page = scan.answers(cursor, PAGE_BYTES)?;
        if !page.answers.is_empty() {
            pass(FilePart::Answers(page.answers))?;
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}
