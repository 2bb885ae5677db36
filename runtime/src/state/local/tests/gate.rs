//! Holds the committer where it measures the free space, until what shall be in its next batch is queued.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use hvm_types::ByteSize;

use crate::state::FreeSpace;

/// After this the committer is taken for stuck.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    /// The committer stands before it.
    Reached,
}

#[derive(Clone)]
pub(super) struct Gate(Arc<(Mutex<State>, Condvar)>);

impl Gate {
    pub(super) fn open() -> Self {
        Self(Arc::new((Mutex::new(State::Open), Condvar::new())))
    }

    /// A disk with room, measured behind the gate.
    pub(super) fn free_space(&self) -> FreeSpace {
        let gate = self.clone();
        FreeSpace::new(move |_| {
            let mut state = gate.state();
            if *state == State::Closed {
                gate.change(&mut state, State::Reached);
                gate.wait_while(state, State::Reached);
            }
            Ok(ByteSize::mib(1 << 20))
        })
    }

    /// Closes it, lets `first` give the committer work, and opens it when the committer has come and `then` has
    /// queued more.
    pub(super) fn hold<F, T>(&self, first: impl FnOnce() -> F, then: impl FnOnce() -> T) -> (F, T) {
        self.change(&mut self.state(), State::Closed);
        let first = first();
        self.wait_while(self.state(), State::Closed);
        let then = then();
        self.change(&mut self.state(), State::Open);
        (first, then)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("nobody panics with it")
    }

    fn change(&self, state: &mut State, to: State) {
        *state = to;
        self.0.1.notify_all();
    }

    fn wait_while(&self, state: MutexGuard<'_, State>, is: State) {
        let waited = self.0.1.wait_timeout_while(state, PATIENCE, |state| *state == is);
        assert!(!waited.expect("nobody panics with it").1.timed_out(), "the committer is stuck");
    }
}
