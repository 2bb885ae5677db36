//! Components that could not be compiled, and why: for some time they are refused without another try, so that a
//! compile bomb costs its limits once and not with every retry.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hvm_types::Digest;

use crate::CompileError;

/// How long an answer holds. Time and memory can be short for reasons outside a component, so it is not for ever.
const HOLDS: Duration = Duration::from_secs(600);
/// Answers that are kept; the oldest goes.
const MOST: usize = 256;

/// Components that could not be compiled.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<HashMap<Digest, (Instant, CompileError)>>);

impl Refused {
    /// Why this component was refused lately.
    pub(super) fn get(&self, digest: Digest, now: Instant) -> Option<CompileError> {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, error) = refused.get(&digest)?;
        (now.duration_since(*since) < HOLDS).then(|| error.clone())
    }

    /// Takes note of a failure, if it is one of the component.
    pub(super) fn note(&self, digest: Digest, error: &CompileError, now: Instant) {
        if !error.is_of_component() {
            return;
        }
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, (since, _)| now.duration_since(*since) < HOLDS);
        if refused.len() >= MOST
            && let Some(oldest) =
                refused.iter().min_by_key(|(_, (since, _))| *since).map(|(digest, _)| *digest)
        {
            refused.remove(&oldest);
        }
        refused.insert(digest, (now, error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_some_time_and_only_where_the_component_is_to_blame() {
        let refused = Refused::default();
        let (bomb, other) = (Digest::of(b"bomb"), Digest::of(b"other"));
        let now = Instant::now();
        let slow = CompileError::TooSlow { digest: bomb, limit: HOLDS };
        let starved = CompileError::TimedOut { digest: other, limit: HOLDS };
        refused.note(other, &starved, now);
        refused.note(bomb, &slow, now);
        refused.note(other, &CompileError::Stopped { digest: other }, now);
        assert_eq!(refused.get(bomb, now), Some(slow));
        assert_eq!(refused.get(bomb, now + HOLDS), None);
        assert_eq!(refused.get(other, now), None);
    }

    #[test]
    fn no_more_answers_are_kept_than_there_is_room_for() {
        let refused = Refused::default();
        let now = Instant::now();
        for number in 0..=MOST as u64 {
            let digest = Digest::of(&number.to_le_bytes());
            let error = CompileError::Refused { digest, reason: String::new() };
            refused.note(digest, &error, now + Duration::from_millis(number));
        }
        let later = now + Duration::from_secs(1);
        assert_eq!(refused.get(Digest::of(&0_u64.to_le_bytes()), later), None, "the oldest was kept");
        assert!(refused.get(Digest::of(&(MOST as u64).to_le_bytes()), later).is_some());
    }
}
