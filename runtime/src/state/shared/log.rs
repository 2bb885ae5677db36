//! Appending to a log: its writer adds what it commits, others end claims in it. Numbers are dense, and each is
//! taken by whoever creates it first; that alone orders a writer and those who take partitions from it.

use bytes::Bytes;

use super::names::{LogName, number_in};
use super::objects::{Created, ObjectError, Objects};
use super::segment::{Body, Entry, Fence, Segment};
use super::wire::{Broken, Checksum};

/// The writer's end of a log.
#[derive(Debug)]
pub(super) struct LogWriter {
    objects: Objects,
    name: LogName,
    next: u64,
    link: Checksum,
}

/// What came of an append.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// It is segment of this number.
    At(u64),
    /// Nothing was written: these claims were taken away at this number. The rest may be appended again.
    Fenced(u64, Vec<Fence>),
    /// Nothing was written: another ended the log.
    Ended,
}

impl LogWriter {
    /// A new log, whose name nobody has used.
    pub(super) fn new(objects: Objects, name: LogName) -> Self {
        Self { objects, name, next: 0, link: Checksum::default() }
    }

    pub(super) fn name(&self) -> &LogName {
        &self.name
    }

    /// The next segment as it will be appended.
    pub(super) fn draft(&self, entries: Vec<Entry>) -> Bytes {
        let nonce = self.objects.surroundings().nonce();
        let body = Body::Own { link: self.link, entries };
        Segment { log: self.name.clone(), number: self.next, nonce, body }.encode()
    }

    /// Puts a draft at its number. After an error it is unknown whether it is there: the same draft must be
    /// given again, before any other.
    pub(super) async fn append(&mut self, draft: &Bytes) -> Result<Appended, ObjectError> {
        let number = self.next;
        let path = self.name.segment(number);
        let found = match self.objects.create(&path, draft).await? {
            Created::Yes => {
                self.advance(draft);
                return Ok(Appended::At(number));
            }
            Created::Exists(found) => found,
        };
        let segment = Segment::decode(&found).map_err(|broken| ObjectError::corrupt(&path, broken))?;
        match segment.body {
            Body::Fence(fences) => {
                self.advance(&found);
                Ok(Appended::Fenced(number, fences))
            }
            Body::Seal | Body::Retire => Ok(Appended::Ended),
            Body::Own { .. } => {
                Err(ObjectError::corrupt(&path, Broken("was written by another writer of this log")))
            }
        }
    }

    fn advance(&mut self, segment: &[u8]) {
        self.next += 1;
        self.link = Checksum::of_object(segment);
    }
}

/// Ends claims in another's log. Returns the number up to which its segments count for them; the segments
/// behind that can't concern them any more.
pub(super) async fn end_claims(objects: &Objects, log: &LogName, body: Body) -> Result<u64, ObjectError> {
    let numbers = objects.list(&log.segments()).await?;
    let last = numbers.last().and_then(number_in);
    if let Some(number) = last {
        let path = log.segment(number);
        if let Some(object) = objects.get(&path).await? {
            let segment = Segment::decode(&object).map_err(|broken| ObjectError::corrupt(&path, broken))?;
            if matches!(segment.body, Body::Seal | Body::Retire) && !matches!(body, Body::Retire) {
                return Ok(number);
            }
        }
    }
    let mut number = last.map_or(0, |last| last + 1);
    loop {
        let nonce = objects.surroundings().nonce();
        let segment = Segment { log: log.clone(), number, nonce, body: body.clone() };
        // What is there may be this very segment, after a lost answer: a second one does no harm.
        if objects.create_blind(&log.segment(number), &segment.encode()).await? {
            return Ok(number);
        }
        number += 1;
    }
}
