//! Clients that move money in books, each in one of its own, and remember what was acknowledged. Whoever gets no
//! acknowledgement repeats the command with the same key, on one host or the other, until there is one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::{Answer, Client};
use serde_json::Value;

/// Between two tries of one command.
const PAUSE: Duration = Duration::from_millis(50);

/// Between two commands: what was acknowledged is all asked for again in the end.
const PACE: Duration = Duration::from_millis(20);

/// What a client was told.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The answer to each acknowledged command, by its key.
    pub(crate) acknowledged: BTreeMap<String, String>,
    /// How often a host refused because another one owns the partition.
    pub(crate) fenced: usize,
    /// How often anything else was answered than that it is done.
    pub(crate) refused: usize,
    /// The longest time that a command took, with all its tries.
    pub(crate) longest: Duration,
}

/// Clients at work.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    acknowledged: Vec<Arc<AtomicUsize>>,
    clients: Vec<JoinHandle<Heard>>,
}

/// Moves one unit in a book.
pub(crate) fn transfer(client: &Client, ingress: &str, book: &str, key: &str) -> Result<Answer, String> {
    let body = r#"{"from": "bank", "to": "alice", "amount": 1}"#;
    client.post(&format!("{ingress}/books/{book}/transfers"), &[("idempotency-key", key)], body)
}

/// Whether an answer says that the host has lost the partition.
pub(crate) fn is_fenced(answer: &Answer) -> bool {
    answer.status == 503 && answer.body.contains("another host owns")
}

/// What a book has of `alice`; a book whose entries do not add up has nothing.
pub(crate) fn balance(client: &Client, ingress: &str, book: &str) -> Result<usize, String> {
    let read = |path: &str| {
        let answer = client.get(&format!("{ingress}/books/{book}/{path}"))?;
        let value: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(value) } else { Err(format!("{}: {}", answer.status, answer.body)) }
    };
    let sum = read("sum")?;
    if sum["sum"] != 0 {
        return Err(format!("the sum is {sum}"));
    }
    let account = read("accounts/alice")?;
    account["balance"].as_u64().and_then(|units| usize::try_from(units).ok()).ok_or(account.to_string())
}

impl Crowd {
    /// Begins: each client asks the hosts in turn, beginning with another one.
    pub(crate) fn start(size: usize, ingresses: [String; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: Vec<Arc<AtomicUsize>> = (0..size).map(|_| Arc::default()).collect();
        let clients = acknowledged.iter().enumerate().map(|(number, count)| {
            let (stop, count, ingresses) = (Arc::clone(&stop), Arc::clone(count), ingresses.clone());
            std::thread::spawn(move || work(number, &ingresses, &stop, &count))
        });
        Self { clients: clients.collect(), stop, acknowledged }
    }

    /// The book of a client.
    pub(crate) fn book(number: usize) -> String {
        format!("book-{number}")
    }

    /// How many commands of each client were acknowledged until now.
    pub(crate) fn acknowledged(&self) -> Vec<usize> {
        self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Whether each client got at least `more` acknowledgements since `before`.
    pub(crate) fn has_gone_on(&self, before: &[usize], more: usize) -> Result<(), String> {
        let now = self.acknowledged();
        if now.iter().zip(before).all(|(now, before)| *now >= before + more) {
            Ok(())
        } else {
            Err(format!("{before:?} became {now:?}"))
        }
    }

    /// Ends: whoever has a command under way still gets its answer.
    pub(crate) fn stop(self) -> Vec<Heard> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(|client| client.join().expect("a client ended well")).collect()
    }
}

fn work(number: usize, ingresses: &[String; 2], stop: &AtomicBool, count: &AtomicUsize) -> Heard {
    let (client, book) = (Client::new(), Crowd::book(number));
    let mut heard = Heard::default();
    let mut turn = number;
    for command in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{number}-{command}");
        let began = Instant::now();
        loop {
            turn += 1;
            match transfer(&client, &ingresses[turn % 2], &book, &key) {
                Ok(answer) if answer.status == 201 => {
                    heard.acknowledged.insert(key, answer.body);
                    heard.longest = heard.longest.max(began.elapsed());
                    count.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PACE);
                    break;
                }
                Ok(answer) => {
                    assert!(answer.status.is_server_error(), "{}: {}", answer.status, answer.body);
                    heard.fenced += usize::from(is_fenced(&answer));
                    heard.refused += 1;
                }
                Err(_) => {}
            }
            std::thread::sleep(PAUSE);
        }
    }
    heard
}

/// That nothing acknowledged is lost or doubled, and that each key still has the answer of then.
pub(crate) fn judge(heard: &[Heard], ingress: &str) {
    let client = Client::new();
    for (number, heard) in heard.iter().enumerate() {
        let book = Crowd::book(number);
        let expected = heard.acknowledged.len();
        assert_eq!(balance(&client, ingress, &book), Ok(expected), "{book}: applied and acknowledged");
        for (key, first) in &heard.acknowledged {
            let again = transfer(&client, ingress, &book, key).expect("an answer");
            assert_eq!((again.status.as_u16(), &again.body), (201, first), "{book}, key {key}");
        }
        assert_eq!(balance(&client, ingress, &book), Ok(expected), "{book}: a repeated key is not applied");
    }
}
