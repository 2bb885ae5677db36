//! The requests of one connection: which are under way, which its client took back, and how long there was none.
//! Taking one back costs the client a few bytes and the host the beginning of a request, so a client that takes back
//! more than it lets be answered loses its connection; so does one that asks for nothing, or is long in sending what it
//! asks (see [`super::connections`]).
//!
//! A request costs a few additions here and no look at a clock.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// Requests that a connection may take back beyond those that were answered.
const MAX_RESETS: u32 = 100;

/// The requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    under_way: Cell<u32>,
    /// Of those, the ones whose answers have begun.
    answering: Cell<u32>,
    /// Bodies that are not here as a whole.
    arriving: Arc<AtomicU32>,
    /// All so far; it may go round.
    begun: Cell<u32>,
    begun_at_last_look: Cell<u32>,
    quiet_looks: Cell<u32>,
    sending_looks: Cell<u32>,
    answered: Cell<u32>,
    taken_back: Cell<u32>,
    ending: Cell<Option<Ending>>,
    told: Notify,
}

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its client took back too many requests.
    TakenBack,
    /// It was quiet for long: its client is told, and may finish what it has just begun.
    Quiet,
    /// Its place is wanted, and its client was long in sending what it asks: it ends with its requests.
    Sending,
    /// Its place is wanted, or it did not end when it was told to: it ends now, if nothing is under way.
    Now,
}

impl Requests {
    /// A request begins. Only those of HTTP/2 can be taken back while the connection goes on.
    pub(crate) fn begin(self: &Rc<Self>, can_be_taken_back: bool) -> UnderWay {
        self.under_way.set(self.under_way.get() + 1);
        self.begun.set(self.begun.get().wrapping_add(1));
        UnderWay { requests: Rc::clone(self), is_awaited: can_be_taken_back, is_answered: false }
    }

    /// The body of a request is on its way.
    pub(crate) fn receive(&self) -> Arriving {
        self.arriving.fetch_add(1, Ordering::Relaxed);
        Arriving(Arc::clone(&self.arriving))
    }

    /// Every request that is under way is still being sent.
    fn is_sending(&self) -> bool {
        let under_way = self.under_way.get();
        under_way > 0 && self.answering.get() == 0 && self.arriving.load(Ordering::Relaxed) >= under_way
    }

    /// Nothing is asked and nothing is being answered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.under_way.get() == 0
    }

    /// Looks whether there was a request since the last look; returns how many looks in a row there was none.
    pub(crate) fn look(&self) -> u32 {
        let begun = self.begun.get();
        let is_same = self.begun_at_last_look.replace(begun) == begun;
        let looks = if self.is_quiet() && is_same { self.quiet_looks.get().saturating_add(1) } else { 0 };
        self.quiet_looks.set(looks);
        let sending =
            if self.is_sending() && is_same { self.sending_looks.get().saturating_add(1) } else { 0 };
        self.sending_looks.set(sending);
        looks
    }

    /// How many looks in a row found the same requests, and all of them still being sent.
    pub(crate) fn sending_looks(&self) -> u32 {
        if self.is_sending() { self.sending_looks.get() } else { 0 }
    }

    /// How many looks in a row found nothing.
    pub(crate) fn quiet_looks(&self) -> u32 {
        self.quiet_looks.get()
    }

    /// Tells the connection to end.
    pub(crate) fn end(&self, ending: Ending) {
        self.ending.set(Some(ending));
        self.told.notify_one();
    }

    /// Whether it was told to end and has not looked yet.
    pub(crate) fn is_told(&self) -> bool {
        self.ending.get().is_some()
    }

    /// Resolves when the connection is to end.
    pub(crate) async fn told(&self) -> Ending {
        loop {
            self.told.notified().await;
            if let Some(ending) = self.ending.take() {
                return ending;
            }
        }
    }
}

/// A request until its answer was sent or dropped; taken back if it is dropped before there is an answer.
#[derive(Debug)]
pub(crate) struct UnderWay {
    requests: Rc<Requests>,
    is_awaited: bool,
    is_answered: bool,
}

/// A body that is not here as a whole, until it is or nobody wants it any more.
#[derive(Debug)]
pub(crate) struct Arriving(Arc<AtomicU32>);

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl UnderWay {
    /// There is an answer, whose body is still to be sent.
    pub(crate) fn answered<B>(mut self, body: B) -> Answering<B> {
        self.is_awaited = false;
        self.is_answered = true;
        self.requests.answering.set(self.requests.answering.get() + 1);
        let answered = &self.requests.answered;
        answered.set(answered.get().saturating_add(1));
        Answering { body, _under_way: self }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let requests = &self.requests;
        requests.under_way.set(requests.under_way.get() - 1);
        if self.is_answered {
            requests.answering.set(requests.answering.get() - 1);
        }
        if self.is_awaited {
            requests.taken_back.set(requests.taken_back.get().saturating_add(1));
            if requests.taken_back.get() > requests.answered.get().saturating_add(MAX_RESETS) {
                requests.end(Ending::TakenBack);
            }
        }
    }
}

/// The body of an answer, whose request is under way until it is dropped.
#[derive(Debug)]
pub(crate) struct Answering<B> {
    body: B,
    _under_way: UnderWay,
}

impl<B: Body + Unpin> Body for Answering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn taking_back_is_allowed_as_often_as_answers_are_awaited_and_a_little_more() {
        let requests = Rc::new(Requests::default());
        (0..50).for_each(|_| drop(requests.begin(true).answered(())));
        (0..MAX_RESETS + 50).for_each(|_| drop(requests.begin(true)));
        (0..1000).for_each(|_| drop(requests.begin(false)));
        assert!(requests.told().now_or_never().is_none());
        drop(requests.begin(true));
        assert_eq!(requests.told().now_or_never(), Some(Ending::TakenBack));
    }

    #[test]
    fn quiet_is_who_neither_asks_nor_is_answered() {
        let requests = Rc::new(Requests::default());
        assert_eq!((requests.look(), requests.look()), (1, 2));
        // One that came and went between two looks counts.
        drop(requests.begin(false).answered(()));
        assert_eq!((requests.look(), requests.look()), (0, 1));
        let answering = requests.begin(true).answered(());
        assert_eq!((requests.look(), requests.look(), requests.is_quiet()), (0, 0, false));
        drop(answering);
        assert_eq!((requests.look(), requests.is_quiet()), (1, true));
    }
}
