//! The clients: each does one errand after another until the server is gone or they are told to stop.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::book::Operation;
use crate::order::Call;
use crate::scene::{Errand, Order, Scene};
use crate::wire::{Heard, Wire};

/// Clients that ask at the same time.
const CLIENTS: usize = 12;
/// Before a server that refused for now is asked again.
const PAUSE: Duration = Duration::from_millis(5);

/// The clients of one life of a server.
pub(crate) struct Crowd {
    scene: Rc<RefCell<Scene>>,
    stopped: Rc<Cell<bool>>,
    /// Clients that still have something to do.
    at_work: Rc<Cell<usize>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

/// Whether the server still answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    There,
    Gone,
}

impl Crowd {
    /// Lets all clients begin. Within a `LocalSet` only.
    pub(crate) fn begin(scene: &Rc<RefCell<Scene>>, wire: &Rc<Wire>) -> Self {
        let stopped = Rc::new(Cell::new(false));
        let at_work = Rc::new(Cell::new(CLIENTS));
        let client = |_| {
            let (scene, wire, stopped) = (scene.clone(), wire.clone(), stopped.clone());
            let at_work = at_work.clone();
            tokio::task::spawn_local(async move {
                let mut server = Server::There;
                while server == Server::There && !stopped.get() {
                    let Some(errand) = scene.borrow_mut().errand() else { break };
                    server = run(&scene, &wire, errand).await;
                    let mut scene = scene.borrow_mut();
                    scene.answered += usize::from(server == Server::There);
                    scene.news.notify_one();
                }
                at_work.set(at_work.get() - 1);
                scene.borrow().news.notify_one();
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { scene: scene.clone(), stopped, at_work, clients }
    }

    /// Waits until the scene is as wanted, or something is wrong, or nobody asks any more.
    pub(crate) async fn until(&self, wanted: impl Fn(&Scene) -> bool) {
        let news = self.scene.borrow().news.clone();
        loop {
            let is_reached = {
                let scene = self.scene.borrow();
                wanted(&scene) || !scene.findings.is_empty() || self.at_work.get() == 0
            };
            if is_reached {
                return;
            }
            news.notified().await;
        }
    }

    /// Lets each finish its errand and stop.
    pub(crate) async fn stop(&mut self) {
        self.stopped.set(true);
        self.wait().await;
    }

    /// Waits until all have nothing to do, or have noticed that the server is gone.
    pub(crate) async fn wait(&mut self) {
        for client in self.clients.drain(..) {
            client.await.expect("a client does not panic");
        }
    }
}

/// Does one errand.
async fn run(scene: &RefCell<Scene>, wire: &Wire, errand: Errand) -> Server {
    match errand {
        Errand::Ask { book, operation } => ask(scene, wire, book, operation).await,
        Errand::AskTwice(Order { book, transfer }) => {
            let operation = Operation::Transfer(transfer);
            let (one, other) =
                tokio::join!(ask(scene, wire, book, operation), ask(scene, wire, book, operation));
            if one == Server::There { other } else { one }
        }
        Errand::Repeat { order, body } => repeat(scene, wire, order, &body).await,
    }
}

/// Asks until there is an answer or the server is gone, and notes the call.
async fn ask(scene: &RefCell<Scene>, wire: &Wire, book: usize, operation: Operation) -> Server {
    loop {
        let begun = scene.borrow_mut().tick();
        let heard = in_flight(scene, operation.is_command(), wire.ask(book, &operation)).await;
        if let Some(server) = note(&mut scene.borrow_mut(), book, operation, begun, heard) {
            return server;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Notes what was heard of a call. None where it is to be asked again.
fn note(scene: &mut Scene, book: usize, operation: Operation, begun: u64, heard: Heard) -> Option<Server> {
    let ended = scene.tick();
    let call = Call { begun, ended, operation, answer: None };
    match heard {
        Heard::Answer { answer, body, replayed, partition } => {
            scene.calls[book].push(Call { answer: Some(answer), ..call });
            scene.partitions[book] = Some(partition);
            if let Operation::Transfer(transfer) = operation {
                scene.settle(Order { book, transfer }, answer, body, replayed);
            }
            Some(Server::There)
        }
        Heard::Lost => {
            scene.calls[book].push(call);
            scene.tally.unanswered += usize::from(operation.is_command());
            Some(Server::Gone)
        }
        Heard::Wrong(what) => {
            scene.calls[book].push(call);
            scene.findings.push(what);
            Some(Server::Gone)
        }
        Heard::NotNow => None,
    }
}

/// Sends an acknowledged transfer again.
async fn repeat(scene: &RefCell<Scene>, wire: &Wire, order: Order, first: &str) -> Server {
    let operation = Operation::Transfer(order.transfer);
    loop {
        match in_flight(scene, true, wire.ask(order.book, &operation)).await {
            Heard::Answer { body, replayed, .. } => {
                let mut scene = scene.borrow_mut();
                scene.tally.repeated += 1;
                if body != first || !replayed {
                    scene.findings.push(format!(
                        "an acknowledged transfer that is sent again gets another answer: {order:?} was answered \
                         with {first}, and then with {body} (said to be a repetition: {replayed})"
                    ));
                }
                return Server::There;
            }
            Heard::Lost => return Server::Gone,
            Heard::Wrong(what) => {
                scene.borrow_mut().findings.push(what);
                return Server::Gone;
            }
            Heard::NotNow => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn in_flight<T>(scene: &RefCell<Scene>, is_command: bool, answer: impl Future<Output = T>) -> T {
    let count = |change: isize| {
        let mut scene = scene.borrow_mut();
        let count = if is_command { &mut scene.commands_in_flight } else { &mut scene.queries_in_flight };
        *count = count.checked_add_signed(change).expect("as many end as begin");
    };
    count(1);
    let answer = answer.await;
    count(-1);
    answer
}
