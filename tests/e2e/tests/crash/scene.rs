//! What the clients of one server share: what was asked and answered, what is still open, and what to ask next.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use tokio::sync::Notify;

use crate::book::{ACCOUNTS, Answer, BANK, Operation, Transfer};
use crate::numbers::Numbers;
use crate::order::Call;
use crate::tally::Tally;

/// Books in one directory; its partitions are fewer, so that some share one.
pub(crate) const BOOKS: usize = 10;
/// Answers that are kept to be asked for again: fewer than any partition keeps.
const SETTLED_MAX: usize = 2000;

/// A transfer in its book.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) book: usize,
    pub(crate) transfer: Transfer,
}

/// What a client does next.
#[derive(Debug, Clone)]
pub(crate) enum Errand {
    /// Ask, and note it in the history.
    Ask { book: usize, operation: Operation },
    /// Send a transfer on two connections at once.
    AskTwice(Order),
    /// Send an acknowledged transfer again: the same answer has to come.
    Repeat { order: Order, body: String },
}

/// All of it. Nothing is held across an await.
pub(crate) struct Scene {
    pub(crate) numbers: Numbers,
    /// Counts what happens: a later event has a larger number.
    clock: u64,
    next_key: u64,
    /// The calls on each book since its history was judged last.
    pub(crate) calls: Vec<Vec<Call>>,
    /// Transfers that have no answer and are not given up.
    pub(crate) open: BTreeMap<u64, Order>,
    /// What is to be done before anything else.
    pub(crate) errands: VecDeque<Errand>,
    /// Whether clients think of something when there is no errand.
    pub(crate) under_load: bool,
    settled: VecDeque<(Order, String)>,
    pub(crate) commands_in_flight: usize,
    pub(crate) queries_in_flight: usize,
    /// Transfers acknowledged since the server was started.
    pub(crate) acknowledged: usize,
    /// Answers since then.
    pub(crate) answered: usize,
    /// Told of each answer.
    pub(crate) news: Rc<Notify>,
    pub(crate) tally: Tally,
    /// What was found to be wrong outside of histories.
    pub(crate) findings: Vec<String>,
    /// The partition of each book, as the answers said it.
    pub(crate) partitions: Vec<Option<String>>,
}

impl Scene {
    pub(crate) fn new(numbers: Numbers) -> Self {
        Self {
            numbers,
            clock: 0,
            next_key: 0,
            calls: vec![Vec::new(); BOOKS],
            open: BTreeMap::new(),
            errands: VecDeque::new(),
            under_load: false,
            settled: VecDeque::new(),
            commands_in_flight: 0,
            queries_in_flight: 0,
            acknowledged: 0,
            answered: 0,
            news: Rc::default(),
            tally: Tally::default(),
            findings: Vec::new(),
            partitions: vec![None; BOOKS],
        }
    }

    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// What a client does next, if anything.
    pub(crate) fn errand(&mut self) -> Option<Errand> {
        self.errands.pop_front().or_else(|| self.under_load.then(|| self.any_errand()))
    }

    fn any_errand(&mut self) -> Errand {
        // One book is asked more often than the others.
        let book = if self.numbers.one_in(4) { 0 } else { self.numbers.below(BOOKS) };
        let operation = match self.numbers.below(100) {
            0..8 if !self.settled.is_empty() => {
                let (order, body) = self.settled[self.numbers.below(self.settled.len())].clone();
                return Errand::Repeat { order, body };
            }
            0..20 => Operation::Account(self.numbers.below(ACCOUNTS)),
            20..26 => Operation::Sum,
            26..30 => Operation::Listing,
            30..34 => return Errand::AskTwice(self.order(book)),
            _ => Operation::Transfer(self.order(book).transfer),
        };
        Errand::Ask { book, operation }
    }

    /// A new transfer. Every second one comes from the bank; of the others some ask for more than there is.
    fn order(&mut self, book: usize) -> Order {
        self.next_key += 1;
        let from = if self.numbers.one_in(2) { BANK } else { self.numbers.below(ACCOUNTS) };
        let to = (from + 1 + self.numbers.below(ACCOUNTS - 1)) % ACCOUNTS;
        let amount = i64::try_from(self.numbers.below(20) + 1).expect("a small amount");
        let order = Order { book, transfer: Transfer { key: self.next_key, from, to, amount } };
        self.open.insert(self.next_key, order);
        order
    }

    /// Notes that a transfer was answered.
    pub(crate) fn settle(&mut self, order: Order, answer: Answer, body: String, replayed: bool) {
        let was_open = self.open.remove(&order.transfer.key).is_some();
        match answer {
            Answer::Lacking => self.tally.refused += 1,
            _ if was_open => {
                self.tally.acknowledged += 1;
                self.tally.found_applied += usize::from(replayed);
                self.acknowledged += 1;
                self.settled.push_back((order, body));
                if self.settled.len() > SETTLED_MAX {
                    self.settled.pop_front();
                }
            }
            _ => {}
        }
    }

    /// The server is gone: of what is open, most is to be sent to the next one, and the rest is given up.
    pub(crate) fn sort_open(&mut self) {
        self.errands.clear();
        self.acknowledged = 0;
        self.answered = 0;
        for (key, order) in std::mem::take(&mut self.open) {
            if self.numbers.one_in(4) {
                self.tally.given_up += 1;
            } else {
                self.open.insert(key, order);
            }
        }
    }

    /// Looks at every book.
    pub(crate) fn plan_audit(&mut self) {
        for book in 0..BOOKS {
            let ask = |operation| Errand::Ask { book, operation };
            self.errands.extend([ask(Operation::Listing), ask(Operation::Sum)]);
        }
    }

    /// Sends what is open again.
    pub(crate) fn plan_retries(&mut self) {
        let retries = self.open.values().map(|Order { book, transfer }| Errand::Ask {
            book: *book,
            operation: Operation::Transfer(*transfer),
        });
        self.errands.extend(retries);
    }

    /// Sends every acknowledged transfer again that is remembered.
    pub(crate) fn plan_repeats(&mut self) {
        let repeats =
            self.settled.iter().map(|(order, body)| Errand::Repeat { order: *order, body: body.clone() });
        self.errands.extend(repeats);
    }
}
