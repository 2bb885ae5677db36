//! State files: what a reader accepts is whole, in order and within its bounds, whoever made it.
//!
//! The format's files are compiled into this crate, as those of the stored state are.

use bytes::Bytes;
use hvm_types::{ByteSize, Digest, Epoch, Meter, Sequence};

use self::block::{ANSWERS, BlockWriter, END, ENTRIES, HEADER};
use self::file_error::FileError;
use self::header::{Counts, FileEnd, FileHeader, FileSummary, Origin};
use self::read::{FilePart, FileReader};
use self::write::FileWriter;
use crate::state::{Idempotency, Input, ScanHead, StoredResponse, WindowAnswer};

#[path = "../../../runtime/src/state/file/block.rs"]
mod block;
#[allow(unreachable_pub, reason = "the runtime exports it")]
#[path = "../../../runtime/src/state/file/file_error.rs"]
mod file_error;
#[allow(dead_code, unreachable_pub, reason = "the runtime uses the rest, and exports it")]
#[path = "../../../runtime/src/state/file/header.rs"]
mod header;
#[allow(dead_code, unreachable_pub, reason = "the runtime uses the rest, and exports it")]
#[path = "../../../runtime/src/state/file/read.rs"]
mod read;
#[allow(dead_code, unreachable_pub, reason = "the runtime uses the rest, and exports it")]
#[path = "../../../runtime/src/state/file/write.rs"]
mod write;

/// Whatever a reader accepts is written again with the same contents, and no damage to a file is taken for other
/// contents.
///
/// # Panics
/// Where that does not hold.
pub(crate) fn check(input: &[u8]) {
    accepted_is_written_the_same(input);
    accepted_is_written_the_same(&with_right_checksums(Input(input)));
    damage_is_found(Input(input));
}

fn read(bytes: &[u8]) -> Result<(Vec<FilePart>, FileSummary), FileError> {
    let mut reader = FileReader::begin(bytes)?;
    let mut parts = Vec::new();
    while let Some(part) = reader.next_part()? {
        parts.push(part);
    }
    let summary = reader.summary().expect("a file that has ended has a summary").clone();
    assert_eq!((summary.bytes, summary.digest), (bytes.len() as u64, Digest::of(bytes)));
    Ok((parts, summary))
}

fn accepted_is_written_the_same(bytes: &[u8]) {
    let Ok((parts, summary)) = read(bytes) else { return };
    let again = write(summary.header.clone(), &parts);
    let (parts_again, summary_again) = read(&again).expect("what was written is whole");
    assert_eq!(contents(&parts_again), contents(&parts));
    assert_eq!((summary_again.header, summary_again.entries), (summary.header, summary.entries));
}

/// Entries and answers, however they were spread over blocks.
fn contents(parts: &[FilePart]) -> (Vec<(String, String, Bytes)>, Vec<WindowAnswer>) {
    let (mut all_entries, mut all_answers) = (Vec::new(), Vec::new());
    for part in parts.iter().cloned() {
        match part {
            FilePart::Entries { bucket, entries } => {
                all_entries.extend(entries.into_iter().map(|(key, value)| (bucket.clone(), key, value)));
            }
            FilePart::Answers(answers) => all_answers.extend(answers),
        }
    }
    assert!(all_entries.is_sorted_by(|a, b| (&a.0, &a.1) < (&b.0, &b.1)), "keys are not in order");
    (all_entries, all_answers)
}

fn write(header: FileHeader, parts: &[FilePart]) -> Vec<u8> {
    let mut file = FileWriter::begin(Vec::new(), header).expect("memory takes it");
    let (entries, answers) = contents(parts);
    for (bucket, key, value) in entries {
        file.entry(&bucket, &key, &value).expect("memory takes it");
    }
    answers.iter().for_each(|answer| file.answer(answer).expect("memory takes it"));
    file.finish().expect("memory takes it").0
}

fn header(stored: u64, answers: u64, sequence: u64) -> FileHeader {
    let head = ScanHead {
        epoch: Epoch(1),
        sequence: Sequence(sequence),
        unix_millis: 1,
        stored: ByteSize(stored),
        answers,
        schema: None,
        meter: Meter::default(),
    };
    FileHeader { partition: "ledger/books/3".parse().expect("a replica"), origin: Origin::default(), head }
}

/// Blocks whose payloads the input chooses.
fn with_right_checksums(mut input: Input<'_>) -> Vec<u8> {
    let mut blocks = BlockWriter::begin(Vec::new()).expect("memory takes it");
    let counts = Counts {
        entries: u64::from(input.byte()),
        stored: u64::from(input.byte()),
        answers: u64::from(input.byte()),
        optional: u64::from(input.byte()),
    };
    let text = header(counts.stored, counts.answers, 300).to_text();
    let own = input.byte().is_multiple_of(8);
    blocks.block(HEADER, if own { input.some() } else { text.as_bytes() }).expect("memory takes it");
    for _ in 0..input.byte() % 6 {
        let kind = match input.byte() % 8 {
            0..4 => ENTRIES,
            4..6 => ANSWERS,
            6 => 200,
            _ => input.byte(),
        };
        blocks.block(kind, input.some()).expect("memory takes it");
    }
    let end = FileEnd { counts, digest: blocks.digest() }.to_text();
    blocks.block(END, end.as_bytes()).expect("memory takes it");
    blocks.into_inner()
}

fn damage_is_found(mut input: Input<'_>) {
    let mut stored = 0;
    let mut entries = std::collections::BTreeMap::new();
    for _ in 0..input.byte() % 8 {
        let bucket = char::from(b'a' + input.byte() % 3).to_string();
        let key = String::from_utf8_lossy(input.some()).into_owned();
        entries.insert((bucket, key), input.some().to_vec());
    }
    for ((_, key), value) in &entries {
        stored += (key.len() + value.len()) as u64;
    }
    let answers: Vec<WindowAnswer> =
        (1..=u64::from(input.byte() % 4)).map(|n| answer(n, &mut input)).collect();
    let header = header(stored, answers.len() as u64, 9);
    let mut file = FileWriter::begin(Vec::new(), header).expect("memory takes it");
    for ((bucket, key), value) in &entries {
        file.entry(bucket, key, value).expect("memory takes it");
    }
    answers.iter().for_each(|answer| file.answer(answer).expect("memory takes it"));
    let (whole, _) = file.finish().expect("memory takes it");
    let damaged = input.damage(&whole);
    match read(&damaged) {
        Ok(_) => assert_eq!(damaged, whole, "damage was not found"),
        Err(error) => assert_ne!(damaged, whole, "an undamaged file was refused: {error}"),
    }
}

fn answer(number: u64, input: &mut Input<'_>) -> WindowAnswer {
    let response = StoredResponse {
        status: u16::from(input.byte()),
        headers: vec![(String::from_utf8_lossy(input.some()).into_owned(), input.some().to_vec().into())],
        body: input.some().to_vec().into(),
    };
    let key = format!("key-{number}").parse().expect("a key");
    let idempotency = Idempotency { key, request: Digest::of(&[input.byte()]), response };
    WindowAnswer { idempotency, sequence: Sequence(number), unix_millis: input.number() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_the_corpus_are_accepted() {
        let input = include_bytes!("../../../fuzz/corpus/state_file/blocks");
        let (parts, summary) = read(&with_right_checksums(Input(input))).expect("a whole file");
        let (entries, answers) = contents(&parts);
        assert_eq!((entries.len(), answers.len(), summary.entries), (2, 1, 2));
    }
}
