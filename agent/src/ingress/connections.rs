//! The open connections of one worker. There is a bound on them; where it is reached, those make room that have been
//! without a request for longest, whether they are kept for later, send a head byte by byte or say nothing: a client
//! that uses its connection keeps it. Where all have one, those make room that are longest in sending it. One that was
//! without a request for [`QUIET`] is closed in any case.
//!
//! One look each second at all of them takes the place of timers: a connection has none, and a request reads no clock.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::requests::{Ending, Requests};

/// How long a connection may be open without a request: unused, or on its way to one. A client that means to use it
/// longer without asking opens another.
const QUIET: Duration = Duration::from_secs(30);

/// How long a connection that was told so may take to end by itself.
const ENDING: Duration = Duration::from_secs(5);

/// Between two looks.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// [`QUIET`] in looks.
pub(crate) const QUIET_LOOKS: u32 = looks(QUIET);
/// [`QUIET`] and [`ENDING`] in looks.
pub(crate) const MOST_QUIET_LOOKS: u32 = looks(QUIET) + looks(ENDING);

/// A client may take so many looks to send its requests before others may have its place.
const SENDING_LOOKS: u32 = 3;

/// Of all places, the part that is made free at once: choosing means looking at every connection.
const ROOM_SHARE: usize = 64;

/// The open connections of one worker.
#[derive(Debug)]
pub(crate) struct Connections {
    /// By the order in which they came.
    open: RefCell<BTreeMap<u64, Rc<Requests>>>,
    next: Cell<u64>,
    opened: Notify,
    places: Arc<Semaphore>,
    most: usize,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    all: Rc<Connections>,
    number: u64,
    requests: Rc<Requests>,
    _place: OwnedSemaphorePermit,
}

#[expect(clippy::cast_possible_truncation, reason = "bounds are seconds to minutes")]
const fn looks(time: Duration) -> u32 {
    (time.as_millis() / LOOK_PERIOD.as_millis()) as u32
}

impl Connections {
    /// As many as there are places.
    pub(crate) fn new(places: Arc<Semaphore>) -> Rc<Self> {
        let most = places.available_permits();
        Rc::new(Self { open: RefCell::default(), next: Cell::new(0), opened: Notify::new(), places, most })
    }

    /// Takes a place, where there is one.
    pub(crate) fn try_open(self: &Rc<Self>) -> Option<Connection> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let number = self.next.replace(self.next.get() + 1);
        let requests = Rc::new(Requests::default());
        self.open.borrow_mut().insert(number, Rc::clone(&requests));
        self.opened.notify_one();
        Some(Connection { all: Rc::clone(self), number, requests, _place: place })
    }

    /// Closes what is quiet for too long. It never ends, and does nothing while nothing is open.
    pub(crate) async fn watch(&self) {
        loop {
            while self.open.borrow().is_empty() {
                self.opened.notified().await;
            }
            tokio::time::sleep(LOOK_PERIOD).await;
            self.look();
        }
    }

    /// Looks once at every connection.
    pub(crate) fn look(&self) {
        for requests in self.open.borrow().values() {
            match requests.look() {
                QUIET_LOOKS => requests.end(Ending::Quiet),
                MOST_QUIET_LOOKS.. => requests.end(Ending::Now),
                _ => {}
            }
        }
    }

    /// Lets those end that have been quiet for longest, the older ones first among equals; where none is quiet, those
    /// that have been sending for longest.
    pub(crate) fn make_room(&self) {
        if self.open.borrow().values().any(|requests| requests.is_told()) {
            return;
        }
        let quiet = |requests: &Requests| requests.is_quiet().then(|| requests.quiet_looks());
        let sending =
            |requests: &Requests| Some(requests.sending_looks()).filter(|looks| *looks >= SENDING_LOOKS);
        if !self.end_longest(quiet, Ending::Now) {
            self.end_longest(sending, Ending::Sending);
        }
    }

    /// Whether there was one to end.
    fn end_longest(&self, looks: impl Fn(&Requests) -> Option<u32>, ending: Ending) -> bool {
        let open = self.open.borrow();
        let found =
            open.iter().filter_map(|(number, requests)| Some((Reverse(looks(requests)?), *number, requests)));
        let mut found: Vec<_> = found.collect();
        let wanted = (self.most / ROOM_SHARE).max(1);
        if found.len() > wanted {
            found.select_nth_unstable_by_key(wanted, |(looks, number, _)| (*looks, *number));
        }
        found.iter().take(wanted).for_each(|(_, _, requests)| requests.end(ending));
        !found.is_empty()
    }
}

impl Connection {
    pub(crate) const fn requests(&self) -> &Rc<Requests> {
        &self.requests
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.open.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn full(places: usize) -> (Rc<Connections>, Vec<Connection>) {
        let all = Connections::new(Arc::new(Semaphore::new(places)));
        let open = (0..places).map(|_| all.try_open().expect("a place")).collect();
        assert!(all.try_open().is_none());
        (all, open)
    }

    fn ended(open: &[Connection]) -> Vec<usize> {
        let told = |connection: &Connection| connection.requests().told().now_or_never();
        (0..open.len()).filter(|index| told(&open[*index]) == Some(Ending::Now)).collect()
    }

    #[test]
    fn who_was_without_a_request_for_longest_makes_room_and_nobody_who_has_one() {
        let (all, open) = full(4);
        let _asking = open[0].requests().begin(false);
        all.look();
        drop(open[1].requests().begin(false).answered(()));
        all.look();
        all.make_room();
        assert_eq!(ended(&open), [2]);
        // It has not gone yet: others are asked to.
        all.make_room();
        assert_eq!(ended(&open), [2]);
        let [_, _, third, fourth] = <[_; 4]>::try_from(open).expect("four");
        drop(third);
        assert!(all.try_open().is_some());
        let _asking = fourth.requests().begin(false);
        all.make_room();
        assert_eq!(ended(&[fourth]), Vec::<usize>::new());
    }

    #[test]
    fn where_all_have_requests_those_make_room_that_are_longest_in_sending_them() {
        let (all, open) = full(4);
        let computing = open[0].requests().begin(false);
        let answering = open[1].requests().begin(false).answered(());
        let _streams = (open[1].requests().receive(), open[1].requests().receive());
        let sending = open[2].requests().begin(false);
        let body = open[2].requests().receive();
        let told = |index: usize| open[index].requests().told().now_or_never();
        all.look();
        let _later = (open[3].requests().begin(false), open[3].requests().receive());
        (0..SENDING_LOOKS).for_each(|_| all.look());
        all.make_room();
        assert_eq!([0, 1, 2, 3].map(told), [None, None, Some(Ending::Sending), None]);
        // What is here as a whole is for the guest, however long that takes.
        drop(body);
        (0..SENDING_LOOKS).for_each(|_| all.look());
        all.make_room();
        assert_eq!([0, 1, 2, 3].map(told), [None, None, None, Some(Ending::Sending)]);
        drop((computing, answering, sending));
    }

    #[test]
    fn a_client_has_some_time_to_send_its_request() {
        let (all, open) = full(1);
        let _sending = (open[0].requests().begin(false), open[0].requests().receive());
        (0..SENDING_LOOKS).for_each(|_| all.look());
        all.make_room();
        assert_eq!(open[0].requests().told().now_or_never(), None, "the first look only finds it new");
        all.look();
        all.make_room();
        assert_eq!(open[0].requests().told().now_or_never(), Some(Ending::Sending));
    }

    #[test]
    fn more_than_one_make_room_where_there_are_many() {
        let (all, open) = full(4 * ROOM_SHARE);
        all.make_room();
        all.make_room();
        assert_eq!(ended(&open), [0, 1, 2, 3]);
    }
}
