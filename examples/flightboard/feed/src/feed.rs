//! Sending a file: several requests under way, each flight until it is acknowledged.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::LocalSet;

use crate::SendArgs;
use crate::client::Client;
use crate::flights::{Flight, Journal, read};

const PAUSE_BEFORE_RETRY: Duration = Duration::from_millis(50);
const TRIES_MAX: u32 = 600;
/// How often progress is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_millis(250);

/// What the senders share. They run on one thread.
struct Feed {
    client: Client,
    name: String,
    flights: Vec<Flight>,
    next: Cell<usize>,
    lost: Cell<bool>,
    stop_when_lost: bool,
    journal: RefCell<Journal>,
    progress: ProgressBar,
    /// Where there is no terminal: when the last line of progress was written.
    last_line: Cell<Instant>,
}

/// Sends the file.
pub(crate) async fn send(args: SendArgs) -> anyhow::Result<()> {
    let flights = read(&args.file)?;
    let journal = args.journal.as_deref().map(Journal::read).transpose()?.unwrap_or_default();
    let total = flights.len();
    let progress = ProgressBar::new(total as u64).with_position(journal.acked.len() as u64);
    progress.set_style(ProgressStyle::with_template(
        "{pos}/{len} flights acknowledged {wide_bar} {per_sec} {elapsed}",
    )?);
    let feed = Rc::new(Feed {
        client: Client::new(&args.to),
        name: args.feed,
        flights,
        next: Cell::new(0),
        lost: Cell::new(false),
        stop_when_lost: args.stop_when_lost,
        journal: RefCell::new(journal),
        progress,
        last_line: Cell::new(Instant::now()),
    });
    let start = Instant::now();
    let before = feed.journal.borrow().acked.len();
    let senders = LocalSet::new();
    let handles: Vec<_> =
        (0..args.connections.max(1)).map(|_| senders.spawn_local(Rc::clone(&feed).sender())).collect();
    let outcome = senders
        .run_until(async {
            for handle in handles {
                handle.await??;
            }
            anyhow::Ok(())
        })
        .await;
    feed.progress.finish_and_clear();
    let journal = feed.journal.borrow();
    if let Some(path) = &args.journal {
        journal.write(path)?;
    }
    outcome?;
    let acked = journal.acked.len();
    let seconds = start.elapsed().as_secs_f64();
    println!("{acked} of {total} flights acknowledged ({} new in {seconds:.1} s)", acked - before);
    if feed.lost.get() {
        bail!("the server went away; {} flights were sent and not answered", journal.sent.len());
    }
    Ok(())
}

impl Feed {
    /// Takes one flight after another until there is none left.
    async fn sender(self: Rc<Self>) -> anyhow::Result<()> {
        loop {
            let number = self.next.get();
            if number >= self.flights.len() || self.lost.get() {
                return Ok(());
            }
            self.next.set(number + 1);
            if !self.journal.borrow().acked.contains(&number) {
                self.deliver(number).await?;
            }
        }
    }

    /// Sends one flight until it is acknowledged.
    async fn deliver(&self, number: usize) -> anyhow::Result<()> {
        let flight = &self.flights[number];
        let path = format!("/airports/{}/flights", flight.origin);
        let key = format!("{}-{number}", self.name);
        let body = serde_json::to_vec(flight)?;
        self.journal.borrow_mut().sent.insert(number);
        for _ in 0..TRIES_MAX {
            match self.client.post(&path, &key, body.clone()).await {
                Ok(answer) if answer.status.is_success() => {
                    self.acknowledge(number);
                    return Ok(());
                }
                Ok(answer) if !answer.status.is_server_error() => {
                    let said = String::from_utf8_lossy(&answer.body);
                    bail!("flight {number} was refused with {}: {said}", answer.status);
                }
                Ok(_) => {}
                Err(_) if self.stop_when_lost => {
                    self.lost.set(true);
                    return Ok(());
                }
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE_BEFORE_RETRY).await;
        }
        bail!("flight {number} was not acknowledged after {TRIES_MAX} tries")
    }

    fn acknowledge(&self, number: usize) {
        let mut journal = self.journal.borrow_mut();
        journal.sent.remove(&number);
        journal.acked.insert(number);
        self.progress.inc(1);
        let a_line_is_due = self.last_line.get().elapsed() > LINE_INTERVAL;
        if a_line_is_due && !std::io::stderr().is_terminal() {
            self.last_line.set(Instant::now());
            eprintln!("{}/{} flights acknowledged", journal.acked.len(), self.flights.len());
        }
    }
}
