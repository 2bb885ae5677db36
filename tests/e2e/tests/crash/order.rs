//! Is there an order of these calls that explains every answer? Linearizability, as of Herlihy and Wing (1990), with
//! the search of Wing and Gong (1993) and a memory of the places it was at (Lowe, 2017).
//!
//! One book is one object: a history is linearizable exactly if its part on each object is. A call that was never
//! answered may have taken effect at any time from its begin to its end, or never. All books that the calls may have
//! led to are wanted: they are where the next history starts.
//!
//! Calls under one key are one call as long as at most one attempt was answered: it took effect between the begin of
//! the first attempt and the answer. Of what was not answered at first, most is so known in the end, and little has
//! to be guessed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use crate::book::{Answer, Book, Operation};

/// More places than this, and the history is too tangled to be judged.
const PLACES_MAX: usize = 1_000_000;
/// Calls shown of a history that has no order.
const SHOWN: usize = 12;

/// One call as the client saw it. The times are counted, not measured: of two events the later has the larger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) begun: u64,
    /// When the answer was there, or from when on the call can't take effect any more.
    pub(crate) ended: u64,
    pub(crate) operation: Operation,
    /// None where no answer came.
    pub(crate) answer: Option<Answer>,
}

/// No order of the calls explains the answers.
#[derive(Debug)]
pub(crate) struct NoOrder {
    explained: usize,
    answered: usize,
    books: Vec<Book>,
    next: Vec<Call>,
    unanswered: usize,
}

impl fmt::Display for NoOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "no order of the calls explains the answers: {} of {} can be put in order ({} were not answered), \
             which leads to",
            self.explained, self.answered, self.unanswered
        )?;
        for book in &self.books {
            writeln!(f, "    {:?} after {} transfers", book.balances, book.transfers)?;
        }
        writeln!(f, "and then none of these can come next:")?;
        self.next.iter().try_for_each(|call| {
            writeln!(f, "    {}..{} {:?} -> {:?}", call.begun, call.ended, call.operation, call.answer)
        })
    }
}

/// All books that the calls can have led to, from any of `starts`.
pub(crate) fn outcomes(starts: &BTreeSet<Book>, calls: &[Call]) -> Result<BTreeSet<Book>, NoOrder> {
    Search::new(calls).run(starts)
}

/// Where the search is: which calls are in the order so far, and the book they led to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    /// All answered calls before this one are in.
    prefix: usize,
    /// The answered calls beyond it that are in.
    ahead: BTreeSet<usize>,
    /// The unanswered calls that are in.
    taken: BTreeSet<usize>,
    book: Book,
}

struct Search {
    /// Sorted by when they began.
    answered: Vec<Call>,
    /// Transfers only: a query without an answer says nothing.
    unanswered: Vec<Call>,
    /// Keys with several answers. The others need not be remembered.
    contested: BTreeSet<u64>,
}

impl Search {
    fn new(calls: &[Call]) -> Self {
        // First begin and last end of the attempts under each key, and how many were answered.
        let mut attempts: BTreeMap<u64, (u64, u64, usize)> = BTreeMap::new();
        for call in calls {
            let Some(key) = key(call) else { continue };
            let (begun, ended, answers) = attempts.entry(key).or_insert((u64::MAX, 0, 0));
            *begun = call.begun.min(*begun);
            *ended = call.ended.max(*ended);
            *answers += usize::from(call.answer.is_some());
        }
        let whole = |call: &Call| {
            let known = key(call).and_then(|key| attempts.get(&key));
            Call { begun: known.map_or(call.begun, |known| known.0), ..*call }
        };
        let mut answered: Vec<_> = calls.iter().filter(|call| call.answer.is_some()).map(whole).collect();
        answered.sort_by_key(|call| call.begun);
        let mut seen = BTreeSet::new();
        let is_first = |call: &&Call| {
            key(call)
                .is_some_and(|key| attempts.get(&key).is_some_and(|known| known.2 == 0) && seen.insert(key))
        };
        let last =
            |call: &Call| key(call).and_then(|key| attempts.get(&key)).map_or(call.ended, |known| known.1);
        let unanswered =
            calls.iter().filter(is_first).map(|call| Call { ended: last(call), ..whole(call) }).collect();
        let contested = attempts.iter().filter(|(_, known)| known.2 > 1).map(|(key, _)| *key).collect();
        Self { answered, unanswered, contested }
    }

    fn run(&self, starts: &BTreeSet<Book>) -> Result<BTreeSet<Book>, NoOrder> {
        let begin = |book: &Book| Place {
            prefix: 0,
            ahead: BTreeSet::new(),
            taken: BTreeSet::new(),
            book: book.clone(),
        };
        let mut open: Vec<Place> = starts.iter().map(begin).collect();
        let mut visited: HashSet<Place> = open.iter().cloned().collect();
        let mut ends = BTreeSet::new();
        let mut furthest: Vec<Place> = Vec::new();
        while let Some(place) = open.pop() {
            let explained = |place: &Place| place.prefix + place.ahead.len();
            match furthest.first().map(explained) {
                Some(best) if best > explained(&place) => {}
                Some(best) if best == explained(&place) => furthest.push(place.clone()),
                _ => furthest = vec![place.clone()],
            }
            if place.prefix == self.answered.len() {
                ends.insert(Book { applied: BTreeMap::new(), ..place.book.clone() });
            }
            for next in self.next(&place) {
                if visited.insert(next.clone()) {
                    open.push(next);
                }
            }
            assert!(visited.len() < PLACES_MAX, "the history is too tangled: let fewer clients ask one book");
        }
        if ends.is_empty() { Err(self.no_order(&furthest)) } else { Ok(ends) }
    }

    /// The places that one more call leads to.
    fn next(&self, place: &Place) -> Vec<Place> {
        let (ready, horizon) = self.ready(place);
        let mut places = Vec::new();
        for index in ready {
            let (answer, after) = place.book.perform(&self.answered[index].operation);
            if Some(answer) != self.answered[index].answer {
                continue;
            }
            let next = self.with_answered(place, index, after);
            // What fits and changes nothing can always come now: nothing that is possible later needs it later.
            if next.book == place.book {
                return vec![next];
            }
            places.push(next);
        }
        let latest = place.ahead.last().copied().or(place.prefix.checked_sub(1));
        let latest = latest.map_or(0, |index| self.answered[index].begun);
        for (index, call) in self.unanswered.iter().enumerate() {
            if place.taken.contains(&index) || call.begun >= horizon || call.ended < latest {
                continue;
            }
            if let (_, Some(after)) = place.book.perform(&call.operation) {
                let mut next = place.clone();
                next.book = self.remembered(after, call);
                next.taken.insert(index);
                places.push(next);
            }
        }
        places
    }

    /// The answered calls that may be next, and the time by which the next call has to have begun: each call that
    /// is not in yet comes after those that had ended when it began.
    fn ready(&self, place: &Place) -> (Vec<usize>, u64) {
        let mut horizon = u64::MAX;
        let mut open = Vec::new();
        for (index, call) in self.answered.iter().enumerate().skip(place.prefix) {
            if call.begun >= horizon {
                break;
            }
            if !place.ahead.contains(&index) {
                horizon = horizon.min(call.ended);
                open.push(index);
            }
        }
        open.retain(|index| self.answered[*index].begun < horizon);
        (open, horizon)
    }

    fn with_answered(&self, place: &Place, index: usize, after: Option<Book>) -> Place {
        let mut next = place.clone();
        if let Some(book) = after {
            next.book = self.remembered(book, &self.answered[index]);
        }
        next.ahead.insert(index);
        while next.ahead.remove(&next.prefix) {
            next.prefix += 1;
        }
        next
    }

    /// The book without the answer to this call, where nobody asks again.
    fn remembered(&self, mut book: Book, call: &Call) -> Book {
        if let Some(key) = key(call).filter(|key| !self.contested.contains(key)) {
            book.applied.remove(&key);
        }
        book
    }

    fn no_order(&self, furthest: &[Place]) -> NoOrder {
        let place = furthest.first();
        let next = place.map(|place| self.ready(place).0).unwrap_or_default();
        NoOrder {
            explained: place.map_or(0, |place| place.prefix + place.ahead.len()),
            answered: self.answered.len(),
            books: furthest.iter().take(3).map(|place| place.book.clone()).collect(),
            next: next.iter().take(SHOWN).map(|index| self.answered[*index]).collect(),
            unanswered: self.unanswered.len(),
        }
    }
}

fn key(call: &Call) -> Option<u64> {
    match call.operation {
        Operation::Transfer(transfer) => Some(transfer.key),
        _ => None,
    }
}
