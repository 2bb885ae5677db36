//! Reading one's writes over HTTP: each answer of a partition says which record it saw or made, and a request may
//! ask for a state that has at least such a record.
//!
//! What waits for a record has not begun: it holds no turn and no instance, only its place in the mailbox.

use std::cell::Cell;
use std::future::poll_fn;

use http::{HeaderMap, HeaderName, HeaderValue};
use hvm_types::Sequence;
use tokio::time::sleep_until;

use super::Partition;
use super::job::Job;
use crate::RequestError;
use crate::progress::Step;

/// On an answer of a partition: the number of the record that it made, or of the last one that it saw.
pub const SEQUENCE: HeaderName = HeaderName::from_static("hvm-sequence");

/// On a request to a partition: it runs when the record of this number is committed, or is refused at its deadline.
pub const AT_LEAST: HeaderName = HeaderName::from_static("hvm-at-least");

/// Takes both headers out of a request, and reads what it asks for.
pub(super) fn take_in(headers: &mut HeaderMap) -> Result<Option<Sequence>, RequestError> {
    headers.remove(SEQUENCE);
    let mut values = headers.get_all(AT_LEAST).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse().ok());
    match (number, values.next()) {
        (Some(number), None) => {
            headers.remove(AT_LEAST);
            Ok(Some(Sequence(number)))
        }
        _ => Err(RequestError::AtLeastInvalid),
    }
}

/// Takes both headers out of what a guest answers: they are the host's.
pub(crate) fn strip(headers: &mut HeaderMap) {
    headers.remove(SEQUENCE);
    headers.remove(AT_LEAST);
}

/// Says which record an answer saw or made.
pub(super) fn put(headers: &mut HeaderMap, sequence: Sequence) {
    headers.insert(SEQUENCE, HeaderValue::from(sequence.0));
}

impl Partition {
    /// The last record that is committed, as far as there is state.
    pub(super) fn committed(&self) -> Result<Option<Sequence>, RequestError> {
        let version = self.version();
        let Some(state) = &version.state else { return Ok(None) };
        state.sequence().map(Some).map_err(|error| self.read_error(&error))
    }

    /// Whether what asks for this record need not wait.
    pub(super) fn has(&self, at_least: Option<Sequence>) -> bool {
        let has = |asked| matches!(self.committed(), Ok(Some(committed)) if committed >= asked);
        at_least.is_none_or(has)
    }

    /// Resolves when the record is committed, which may be never: at the deadline it is given up. No more than half of
    /// the mailbox waits so, that the commands have room which commit it.
    pub(super) async fn wait_for(&self, at_least: Sequence, job: &mut Job) -> Result<(), RequestError> {
        let gone = || RequestError::BodyBroken { reason: "the asker is gone".to_owned() };
        let behind = |committed| RequestError::Behind { id: self.observed.id.clone(), at_least, committed };
        job.doing.set(Step::Record);
        let place = Place::take(&self.behind, self.version().spec.resources.mailbox / 2);
        loop {
            let changed = self.changed.notified();
            let committed = match self.committed()? {
                Some(committed) if committed >= at_least => return Ok(()),
                committed => committed.unwrap_or_default(),
            };
            if place.is_none() {
                return Err(behind(committed));
            }
            // Where it is closing, or belongs to somebody else, the record comes elsewhere.
            self.observed.check_ready()?;
            tokio::select! {
                biased;
                () = changed => {}
                () = poll_fn(|context| job.reply.poll_closed(context)) => return Err(gone()),
                () = sleep_until(job.deadline) => return Err(behind(committed)),
            }
        }
    }
}

/// One of the places to wait for a record.
struct Place<'a>(&'a Cell<u32>);

impl<'a> Place<'a> {
    fn take(taken: &'a Cell<u32>, most: u32) -> Option<Self> {
        (taken.get() < most.max(1)).then(|| {
            taken.set(taken.get() + 1);
            Self(taken)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[&str]) -> Result<Option<Sequence>, RequestError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AT_LEAST, value.parse().expect("a valid header"));
        }
        let taken = take_in(&mut headers);
        assert!(taken.is_err() || headers.is_empty(), "it is left in the request");
        taken
    }

    #[test]
    fn a_request_asks_for_one_record_by_its_number_alone() {
        assert_eq!(asked(&[]), Ok(None));
        assert_eq!(asked(&["0"]), Ok(Some(Sequence(0))));
        assert_eq!(asked(&["18446744073709551615"]), Ok(Some(Sequence(u64::MAX))));
        for wrong in ["", "+1", "-1", " 1", "1.0", "1,2", "18446744073709551616", "0x1", "a"] {
            assert_eq!(asked(&[wrong]), Err(RequestError::AtLeastInvalid), "{wrong:?}");
        }
        assert_eq!(asked(&["1", "1"]), Err(RequestError::AtLeastInvalid));
    }
}
