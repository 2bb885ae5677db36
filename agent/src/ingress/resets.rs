//! Requests that an HTTP/2 client takes back. Each costs the client a few bytes and the host the beginning of a
//! request, so one that takes back more than it lets be answered loses its connection.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// Requests that a connection may take back beyond those that were answered.
const MAX_RESETS: u32 = 100;

/// The requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Resets {
    taken_back: Cell<u32>,
    answered: Cell<u32>,
    too_many: Notify,
}

/// A request; taken back if it is dropped before it is answered.
#[derive(Debug)]
pub(crate) struct Unanswered(Option<Rc<Resets>>);

impl Resets {
    pub(crate) fn begin(self: &Rc<Self>) -> Unanswered {
        Unanswered(Some(Rc::clone(self)))
    }

    /// Resolves when the connection has had enough.
    pub(crate) async fn too_many(&self) {
        self.too_many.notified().await;
    }
}

impl Unanswered {
    pub(crate) fn answered(mut self) {
        if let Some(resets) = self.0.take() {
            resets.answered.set(resets.answered.get().saturating_add(1));
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(resets) = self.0.take() else { return };
        resets.taken_back.set(resets.taken_back.get().saturating_add(1));
        if resets.taken_back.get() > resets.answered.get().saturating_add(MAX_RESETS) {
            resets.too_many.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn taking_back_is_allowed_as_often_as_answers_are_awaited_and_a_little_more() {
        let resets = Rc::new(Resets::default());
        (0..50).for_each(|_| resets.begin().answered());
        (0..MAX_RESETS + 50).for_each(|_| drop(resets.begin()));
        assert!(resets.too_many().now_or_never().is_none());
        drop(resets.begin());
        assert!(resets.too_many().now_or_never().is_some());
    }
}
