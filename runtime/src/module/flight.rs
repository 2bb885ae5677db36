//! One compilation for all who want the same component at the same time. It ends early when none of them waits
//! any more.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hvm_types::Digest;
use tokio::sync::watch;

use super::Module;
use crate::CompileError;

pub(super) type Outcome = Result<Module, CompileError>;

/// The compilations that are under way. As many as compilations may wait.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Digest, Weak<Flight>>>);

/// A compilation that is under way, held by all who wait for it.
pub(super) struct Flight {
    ended: watch::Receiver<Option<Outcome>>,
    /// Goes with the last who waits, which its reader sees.
    _wanted: PipeWriter,
}

/// What a compilation has to know and to say.
pub(super) struct Pilot {
    /// Without a writer when nobody waits any more.
    pub(super) cancelled: PipeReader,
    pub(super) ended: watch::Sender<Option<Outcome>>,
}

impl Flights {
    /// Joins the compilation of this component, or begins it with `begin`.
    pub(super) fn join(
        &self,
        digest: Digest,
        begin: impl FnOnce(Pilot) -> io::Result<()>,
    ) -> io::Result<Arc<Flight>> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&digest).and_then(Weak::upgrade) {
            return Ok(flight);
        }
        let (cancelled, wanted) = io::pipe()?;
        let (sender, ended) = watch::channel(None);
        begin(Pilot { cancelled, ended: sender })?;
        let flight = Arc::new(Flight { ended, _wanted: wanted });
        flights.retain(|_, flight| flight.strong_count() > 0);
        flights.insert(digest, Arc::downgrade(&flight));
        Ok(flight)
    }
}

impl Flight {
    /// What became of it. `None` where the compilation broke off without a word.
    pub(super) async fn outcome(&self) -> Option<Outcome> {
        let mut ended = self.ended.clone();
        ended.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn all_who_join_share_one_compilation_and_it_is_cancelled_with_the_last() {
        let flights = Flights::default();
        let digest = Digest::of(b"component");
        let mut pilot = None;
        let first = flights.join(digest, |begun| {
            pilot = Some(begun);
            Ok(())
        });
        let second = flights.join(digest, |_| panic!("a second compilation"));
        let pilot = pilot.expect("begun");
        let (first, second) = (first.expect("joined"), second.expect("joined"));
        drop(first);
        pilot.ended.send_replace(Some(Err(CompileError::Stopped { digest })));
        assert!(matches!(second.outcome().await, Some(Err(CompileError::Stopped { .. }))));
        drop(second);
        let mut cancelled = pilot.cancelled;
        assert_eq!(cancelled.read(&mut [0; 1]).expect("readable"), 0, "its writer is still there");
        flights.join(digest, |_| Ok(())).expect("a new one begins");
    }
}
