//! Whose turn it is among the partitions of a worker.
//!
//! Partitions that used little lately run when they are ready, in the order in which they became ready. One that used
//! much ([`Standing`]) is heavy: its guests wait until everything else that is ready was served, then they have one turn
//! for all of them together, and then the next heavy partition has one. So a neighbour waits for what is left of one
//! turn at most, however many guests of however many heavy partitions want to run; and heavy partitions share the rest
//! equally, whatever number of requests each has.
//!
//! ```text
//! light:  ready ── turn ── sockets and timers ── turn …
//! heavy:  ready ── wait ── everything else that is ready ── called ── turn ── wait …
//! ```
//! One loop calls them. Within a turn, each guest of the partition that has run calls the next one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::standing::Standing;

/// How long a guest runs before it gives way, and a heavy partition with all of its guests. Longer ones are felt by neighbours; giving
/// way costs about two microseconds.
const TURN: Duration = Duration::from_micros(100);
/// A heavy partition that waits gets its turn after so many rounds of all others, even where those are always ready.
const MOST_ROUNDS: u32 = 4;
/// A partition whose worker did nothing for others for so long is alone: its requests begin without waiting.
const ALONE_AFTER: Duration = Duration::from_secs(1);

thread_local! {
    /// When the poll began that runs on this thread.
    static POLL_BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    /// When the guest that was polled gave way, where it did at the end of its turn.
    static GAVE_WAY: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A poll begins that may run a guest.
pub(crate) fn poll_begins(now: Instant) {
    POLL_BEGAN.set(Some(now));
}

/// When the poll began that runs now.
pub(super) fn poll_began() -> Instant {
    POLL_BEGAN.get().unwrap_or_else(Instant::now)
}

/// A guest has worked for a while: where its turn is over, others have their turn first.
pub(crate) async fn give_way_in_time() {
    let Some(began) = POLL_BEGAN.get() else { return };
    let now = Instant::now();
    if now.saturating_duration_since(began) >= TURN {
        give_way_at(now).await;
    }
}

/// Ends a guest's turn.
pub(crate) async fn give_way() {
    give_way_at(Instant::now()).await;
}

async fn give_way_at(now: Instant) {
    GAVE_WAY.set(Some(now));
    // Looks at sockets and timers before it goes on; waking at once would only put it back at the end of the same queue.
    tokio::task::yield_now().await;
}

/// The turns of one worker.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Heavy partitions with guests that wait, each once.
    queue: RefCell<Vec<Rc<Standing>>>,
    running: RefCell<Option<Running>>,
    /// Polls of partitions that are not heavy.
    light_polls: Cell<u64>,
    /// The partition that was polled last, and since when it alone was.
    last: Cell<*const Standing>,
    last_since: Cell<Instant>,
    next_number: Cell<u64>,
    came: Notify,
    ended: Notify,
}

/// The turn of a heavy partition.
#[derive(Debug)]
struct Running {
    standing: Rc<Standing>,
    left: Duration,
}

impl Turns {
    pub(super) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            queue: RefCell::default(),
            running: RefCell::default(),
            light_polls: Cell::new(0),
            last: Cell::new(std::ptr::null()),
            last_since: Cell::new(now),
            next_number: Cell::new(0),
            came: Notify::new(),
            ended: Notify::new(),
        })
    }

    /// Calls heavy partitions, one after another, for as long as the worker lives.
    pub(super) async fn call_loop(self: Rc<Self>) {
        loop {
            while self.queue.borrow().is_empty() {
                self.came.notified().await;
            }
            self.quiet().await;
            self.call_next(Instant::now());
            while self.running.borrow().is_some() {
                self.ended.notified().await;
            }
        }
    }

    /// Resolves when nobody but heavy partitions is ready, or when those have waited for long.
    async fn quiet(&self) {
        tokio::task::yield_now().await;
        for _ in 0..MOST_ROUNDS {
            // All that is ready now was polled when this goes on.
            let before = self.light_polls.get();
            tokio::task::yield_now().await;
            if self.light_polls.get() == before {
                return;
            }
        }
    }

    /// Begins the turn of the partition that used least.
    fn call_next(&self, now: Instant) {
        let mut queue = self.queue.borrow_mut();
        let least =
            queue.iter().enumerate().min_by_key(|(_, standing)| standing.debt(now)).map(|(place, _)| place);
        let Some(least) = least else { return };
        // In order: of several with the same debt, each has its turn.
        let standing = queue.remove(least);
        drop(queue);
        standing.is_queued.set(false);
        let first = first_of(&standing);
        if first.is_some() {
            self.running.replace(Some(Running { standing, left: TURN }));
        }
        wake(first);
    }

    /// Adds the poll of a partition, which ended now. Where it has the turn, its next guest goes on, or the turn ends.
    pub(super) fn polled(&self, standing: &Rc<Standing>, used: Duration, now: Instant) {
        standing.add(used, now);
        if !standing.is_heavy(now) {
            self.light_polls.set(self.light_polls.get() + 1);
        }
        if self.last.get() != Rc::as_ptr(standing) {
            self.last.set(Rc::as_ptr(standing));
            self.last_since.set(now);
        }
        if let Some(running) = &mut *self.running.borrow_mut()
            && Rc::ptr_eq(&running.standing, standing)
        {
            running.left = running.left.saturating_sub(used);
        } else {
            return;
        }
        self.go_on(standing);
    }

    /// Lets the next guest of the partition that has the turn go on, or ends the turn.
    fn go_on(&self, standing: &Rc<Standing>) {
        let left = self.left_of(standing);
        let Some(left) = left else { return };
        let first = first_of(standing);
        if left.is_zero() || first.is_none() {
            self.running.take();
            self.enqueue(standing);
            self.ended.notify_one();
        } else {
            wake(first);
        }
    }

    /// What is left of the partition's turn, where it has one.
    fn left_of(&self, standing: &Rc<Standing>) -> Option<Duration> {
        let running = self.running.borrow();
        running.as_ref().filter(|running| Rc::ptr_eq(&running.standing, standing)).map(|running| running.left)
    }

    /// Puts a partition into the queue where it has guests that wait, and no turn.
    fn enqueue(&self, standing: &Rc<Standing>) {
        if !standing.waiting.borrow().is_empty()
            && !standing.is_queued.get()
            && self.left_of(standing).is_none()
        {
            standing.is_queued.set(true);
            self.queue.borrow_mut().push(Rc::clone(standing));
            self.came.notify_one();
        }
    }

    fn is_alone(&self, standing: &Rc<Standing>, now: Instant) -> bool {
        self.last.get() == Rc::as_ptr(standing)
            && now.saturating_duration_since(self.last_since.get()) >= ALONE_AFTER
    }
}

fn first_of(standing: &Standing) -> Option<Waker> {
    standing.waiting.borrow().front().map(|(_, waker)| waker.clone())
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// One guest's part in the turns of its partition.
pub(super) struct Taking<'a> {
    turns: &'a Rc<Turns>,
    standing: &'a Rc<Standing>,
    /// The number under which it waits.
    number: Option<u64>,
    gave_way: bool,
}

impl<'a> Taking<'a> {
    pub(super) const fn new(turns: &'a Rc<Turns>, standing: &'a Rc<Standing>) -> Self {
        Self { turns, standing, number: None, gave_way: false }
    }

    /// Ready where the guest may be polled.
    pub(super) fn poll_called(&mut self, context: &Context<'_>) -> Poll<()> {
        let Some(now) = POLL_BEGAN.get() else { return Poll::Ready(()) };
        let must_wait = self.standing.is_heavy(now)
            && (self.gave_way || self.number.is_some() || !self.turns.is_alone(self.standing, now));
        if !must_wait || self.turns.left_of(self.standing).is_some_and(|left| !left.is_zero()) {
            self.forget();
            GAVE_WAY.set(None);
            return Poll::Ready(());
        }
        self.wait(context.waker());
        Poll::Pending
    }

    /// The guest was polled. Returns when it gave way, where it did.
    pub(super) fn was_polled(&mut self) -> Option<Instant> {
        let gave_way = GAVE_WAY.take();
        self.gave_way = gave_way.is_some();
        gave_way
    }

    fn wait(&mut self, waker: &Waker) {
        let mut waiting = self.standing.waiting.borrow_mut();
        match self.number {
            Some(number) => {
                if let Some((_, own)) = waiting.iter_mut().find(|(other, _)| *other == number) {
                    own.clone_from(waker);
                }
            }
            None => {
                let number = self.turns.next_number.get();
                self.turns.next_number.set(number + 1);
                self.number = Some(number);
                waiting.push_back((number, waker.clone()));
            }
        }
        drop(waiting);
        self.turns.enqueue(self.standing);
    }

    /// It does not wait any more. True where it did.
    fn forget(&mut self) -> bool {
        let Some(number) = self.number.take() else { return false };
        self.standing.waiting.borrow_mut().retain(|(other, _)| *other != number);
        true
    }

    /// Waits no longer, for it can't run now: the turn is somebody else's.
    pub(super) fn leave(&mut self) {
        if self.forget() {
            self.turns.go_on(self.standing);
        }
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::task::{JoinHandle, LocalSet, spawn_local};

    use super::*;

    /// A worker whose clock moves only while guests run.
    struct Bed {
        turns: Rc<Turns>,
        now: Cell<Instant>,
        /// Who was polled, in order.
        polled: RefCell<Vec<char>>,
    }

    impl Bed {
        fn new() -> Rc<Self> {
            let now = Instant::now();
            let bed = Self { turns: Turns::new(now), now: Cell::new(now), polled: RefCell::default() };
            spawn_local(Rc::clone(&bed.turns).call_loop());
            Rc::new(bed)
        }

        fn light(&self) -> Rc<Standing> {
            Rc::new(Standing::new(self.now.get()))
        }

        fn heavy(&self) -> Rc<Standing> {
            let standing = self.light();
            standing.add(Duration::from_secs(1), self.now.get());
            standing
        }

        fn count(&self, name: char) -> usize {
            self.polled.borrow().iter().filter(|polled| **polled == name).count()
        }

        /// A guest that runs for `turns` polls of this length, and gives way after each.
        fn guest(
            self: &Rc<Self>,
            name: char,
            standing: &Rc<Standing>,
            turns: u32,
            each: Duration,
        ) -> JoinHandle<()> {
            let (bed, standing) = (Rc::clone(self), Rc::clone(standing));
            spawn_local(async move {
                let mut taking = Taking::new(&bed.turns, &standing);
                let mut work = pin!(async {
                    for turn in 0..turns {
                        bed.polled.borrow_mut().push(name);
                        bed.now.set(bed.now.get() + each);
                        if turn + 1 < turns {
                            give_way().await;
                        }
                    }
                });
                poll_fn(|context| {
                    let began = bed.now.get();
                    poll_begins(began);
                    let mut polled = taking.poll_called(context);
                    if polled.is_ready() {
                        polled = work.as_mut().poll(context);
                        taking.was_polled();
                    }
                    bed.turns.polled(&standing, bed.now.get() - began, bed.now.get());
                    polled
                })
                .await;
            })
        }

        async fn until(&self, name: char, count: usize) {
            while self.count(name) < count {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn on_worker<T>(story: impl Future<Output = T>) -> T {
        LocalSet::new().run_until(story).await
    }

    #[tokio::test]
    async fn a_light_partition_waits_for_one_turn_of_heavy_ones_at_most() {
        on_worker(async {
            let bed = Bed::new();
            let heavy: Vec<_> = (0..3).map(|_| bed.heavy()).collect();
            for standing in heavy.iter().flat_map(|standing| [standing; 4]) {
                bed.guest('h', standing, u32::MAX, TURN);
            }
            let light = bed.light();
            for requests in 1..100 {
                bed.guest('l', &light, 1, TURN / 10);
                bed.until('l', requests).await;
            }
            let polled: String = bed.polled.borrow().iter().collect();
            assert!(polled.contains('h') && !polled.contains("hh"), "{polled}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_light_partition_that_needs_several_turns_has_them_before_heavy_ones() {
        on_worker(async {
            let bed = Bed::new();
            let heavy = bed.heavy();
            bed.guest('h', &heavy, u32::MAX, TURN);
            bed.until('h', 5).await;
            bed.polled.borrow_mut().clear();
            bed.guest('l', &bed.light(), 3, TURN);
            bed.until('l', 3).await;
            let polled: String = bed.polled.borrow().iter().collect();
            assert!(polled.ends_with("lll"), "{polled}");
        })
        .await;
    }

    #[tokio::test]
    async fn heavy_partitions_share_equally_however_many_guests_each_has() {
        on_worker(async {
            let bed = Bed::new();
            let (many, one) = (bed.heavy(), bed.heavy());
            for _ in 0..8 {
                bed.guest('m', &many, u32::MAX, TURN);
            }
            bed.guest('o', &one, u32::MAX, TURN);
            bed.until('o', 100).await;
            assert!(bed.count('m').abs_diff(100) <= 10, "{} and {}", bed.count('m'), bed.count('o'));
        })
        .await;
    }

    #[tokio::test]
    async fn guests_of_a_heavy_partition_have_one_turn_together() {
        on_worker(async {
            let bed = Bed::new();
            let (heavy, light) = (bed.heavy(), bed.light());
            for _ in 0..50 {
                bed.guest('h', &heavy, 1, TURN / 5);
            }
            bed.guest('l', &light, 40, Duration::ZERO);
            bed.until('h', 50).await;
            let polled: String = bed.polled.borrow().iter().collect();
            assert!(polled.contains("hhhhh") && !polled.contains("hhhhhh"), "{polled}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_heavy_partition_runs_now_and_then_where_others_are_always_ready() {
        on_worker(async {
            let bed = Bed::new();
            let heavy = bed.heavy();
            bed.guest('h', &heavy, u32::MAX, TURN);
            // They use no time, so they stay light.
            bed.guest('l', &bed.light(), u32::MAX, Duration::ZERO);
            bed.until('h', 20).await;
            let polled: String = bed.polled.borrow().iter().collect();
            let longest = polled.split('h').map(str::len).max();
            assert!(longest.is_some_and(|lights| lights <= 2 + MOST_ROUNDS as usize), "{polled}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_guest_that_is_stopped_while_it_waits_or_is_called_stops_nobody_else() {
        on_worker(async {
            let bed = Bed::new();
            let (heavy, other) = (bed.heavy(), bed.heavy());
            bed.guest('o', &other, u32::MAX, TURN);
            for stopped in 0..20 {
                let guests: Vec<_> = (0..4).map(|_| bed.guest('h', &heavy, u32::MAX, TURN)).collect();
                for _ in 0..stopped {
                    tokio::task::yield_now().await;
                }
                guests.iter().for_each(JoinHandle::abort);
                bed.until('o', bed.count('o') + 5).await;
            }
            bed.guest('h', &heavy, u32::MAX, TURN);
            bed.until('h', bed.count('h') + 5).await;
        })
        .await;
    }

    #[tokio::test]
    async fn requests_of_a_heavy_partition_that_is_alone_begin_at_once() {
        on_worker(async {
            let bed = Bed::new();
            let heavy = bed.heavy();
            let begins_at_once = |bed: &Rc<Bed>| {
                let mut taking = Taking::new(&bed.turns, &heavy);
                poll_begins(bed.now.get());
                taking.poll_called(&Context::from_waker(Waker::noop())).is_ready()
            };
            bed.turns.polled(&bed.light(), Duration::ZERO, bed.now.get());
            assert!(!begins_at_once(&bed), "others were served just now");
            bed.turns.polled(&heavy, Duration::ZERO, bed.now.get());
            bed.now.set(bed.now.get() + ALONE_AFTER);
            bed.turns.polled(&heavy, Duration::from_secs(1), bed.now.get());
            assert!(begins_at_once(&bed), "nobody else was served for long");
        })
        .await;
    }
}
