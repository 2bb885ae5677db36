//! Whose turn it is among guests that run for long.
//!
//! A guest that has used up its slice gives way to the sockets, the timers and everything that is ready. One that has
//! used up several is long-running, and of those only one runs in each round of the worker: whoever answers within a
//! slice or two waits for one slice of another guest at most, however many loop without end.
//!
//! ```text
//! short:  slice ── yield ── slice ── yield ── (long from now on)
//! long:   wait for the call ── yield ── slice ── back to the end of the queue
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// Slices of a request after which its guest counts as long-running.
pub(crate) const SHORT_SLICES: u32 = 2;

thread_local! {
    static QUEUE: RefCell<Queue> = const { RefCell::new(Queue::new()) };
}

/// The long-running guests of one worker. There are no more of them than instances.
#[derive(Debug)]
struct Queue {
    next: u64,
    waiting: VecDeque<(u64, Waker)>,
    /// The one that has been called and not yet run its slice.
    called: Option<u64>,
    /// Whether it runs its slice in this poll.
    is_running: bool,
}

/// Gives way after a slice. `slices` are those of the guest's request so far.
pub(crate) async fn give_way(slices: u32) {
    if slices <= SHORT_SLICES {
        // Looks at the sockets and timers before the guest goes on; waking at once would only put it back at the end
        // of the same queue.
        return tokio::task::yield_now().await;
    }
    let turn = Turn::enqueue();
    std::future::poll_fn(|context| turn.poll_called(context)).await;
    tokio::task::yield_now().await;
    turn.run();
}

/// Every poll of a guest is followed by this: its slice has ended with it.
pub(super) struct AfterPoll;

impl Drop for AfterPoll {
    fn drop(&mut self) {
        let called = QUEUE.with_borrow_mut(|queue| {
            if std::mem::take(&mut queue.is_running) {
                queue.called = None;
            }
            queue.call_next()
        });
        if let Some(waker) = called {
            waker.wake();
        }
    }
}

impl Queue {
    const fn new() -> Self {
        Self { next: 0, waiting: VecDeque::new(), called: None, is_running: false }
    }

    fn call_next(&mut self) -> Option<Waker> {
        if self.called.is_some() {
            return None;
        }
        let (number, waker) = self.waiting.pop_front()?;
        self.called = Some(number);
        Some(waker)
    }
}

/// A place in the queue, until the slice runs or the guest is stopped.
struct Turn(Option<u64>);

impl Turn {
    fn enqueue() -> Self {
        QUEUE.with_borrow_mut(|queue| {
            queue.next += 1;
            queue.waiting.push_back((queue.next, Waker::noop().clone()));
            Self(Some(queue.next))
        })
    }

    fn poll_called(&self, context: &Context<'_>) -> Poll<()> {
        QUEUE.with_borrow_mut(|queue| {
            if queue.called == self.0 {
                return Poll::Ready(());
            }
            let own = queue.waiting.iter_mut().find(|(number, _)| Some(*number) == self.0);
            if let Some((_, waker)) = own {
                waker.clone_from(context.waker());
            }
            Poll::Pending
        })
    }

    /// The slice begins: it ends with this poll.
    fn run(mut self) {
        self.0 = None;
        QUEUE.with_borrow_mut(|queue| queue.is_running = true);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(number) = self.0 else { return };
        let called = QUEUE.with_borrow_mut(|queue| {
            queue.waiting.retain(|(waiting, _)| *waiting != number);
            queue.called.take_if(|called| *called == number);
            queue.call_next()
        });
        if let Some(waker) = called {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::rc::Rc;

    use tokio::task::{JoinHandle, LocalSet, spawn_local};

    use super::*;

    fn hooked<T: 'static>(task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
        spawn_local(async move {
            let mut task = pin!(task);
            std::future::poll_fn(|context| {
                let _after = AfterPoll;
                task.as_mut().poll(context)
            })
            .await
        })
    }

    async fn loops(slices: Rc<Cell<u32>>) {
        for turn in 1.. {
            slices.set(slices.get() + 1);
            give_way(turn).await;
        }
    }

    #[tokio::test]
    async fn of_guests_that_loop_only_one_runs_in_a_round_and_each_has_its_turn() {
        let each: [Rc<Cell<u32>>; 4] = Default::default();
        let sum = {
            let each = each.clone();
            move || each.iter().map(|slices| slices.get()).sum::<u32>()
        };
        LocalSet::new()
            .run_until(async {
                let looping: Vec<_> = each.iter().map(|slices| hooked(loops(Rc::clone(slices)))).collect();
                let short = hooked(async move {
                    let mut most = 0;
                    for round in 0..400 {
                        let before = sum();
                        tokio::task::yield_now().await;
                        if round > 10 {
                            most = most.max(sum() - before);
                        }
                    }
                    most
                });
                assert!(short.await.expect("no panic") <= 1, "several ran in one round");
                for task in looping {
                    task.abort();
                }
            })
            .await;
        let turns: Vec<u32> = each.iter().map(|slices| slices.get()).collect();
        assert!(turns.iter().all(|slices| *slices > 50), "{turns:?}");
    }

    #[tokio::test]
    async fn a_guest_that_is_stopped_in_the_queue_stops_nobody_else() {
        LocalSet::new()
            .run_until(async {
                let slices: Rc<Cell<u32>> = Rc::default();
                let stopped: Vec<_> = (0..8).map(|_| hooked(loops(Rc::default()))).collect();
                let goes_on = hooked(loops(Rc::clone(&slices)));
                for task in stopped {
                    for _ in 0..5 {
                        tokio::task::yield_now().await;
                    }
                    task.abort();
                }
                let before = slices.get();
                while slices.get() < before + 20 {
                    tokio::task::yield_now().await;
                }
                goes_on.abort();
            })
            .await;
    }
}
