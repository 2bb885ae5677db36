//! Asking the ledger over HTTP, and what a broken wire would do to it.
//!
//! A [`Fault`] is planted between the clients and the server, to see that the judge finds what it is there for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::book::{ACCOUNTS, Answer, BANK, Operation};

/// An answer that takes longer will not come.
const LONGEST_ANSWER: Duration = Duration::from_secs(60);
/// With a planted fault, every so many queries get an old answer.
const STALE_EVERY: u64 = 10;

/// What is wrong with the wire or the disk, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Idempotency keys don't arrive.
    ForgottenKeys,
    /// A query is answered as it was answered before.
    StaleReads,
    /// Once, the directory is put back to what it was one kill ago.
    DirectoryPutBack,
    /// The disk says that it synced, and did not.
    LyingDisk,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Heard {
    Answer {
        answer: Answer,
        body: String,
        /// The server said that this is the answer of another time.
        replayed: bool,
        partition: String,
    },
    /// Surely not applied; ask again.
    NotNow,
    /// No answer, or half of one.
    Lost,
    /// Nothing that a server may say.
    Wrong(String),
}

/// A connection pool to one server.
pub(crate) struct Wire {
    http: Client<HttpConnector, Full<Bytes>>,
    ingress: String,
    fault: Fault,
    /// Names of keys and books begin with it.
    name: String,
    /// Queries so far, and the newest answer to each.
    queries: Cell<u64>,
    answers: RefCell<BTreeMap<(usize, Operation), Answer>>,
}

pub(crate) fn account_name(account: usize) -> String {
    if account == BANK { "bank".to_owned() } else { format!("a{account}") }
}

impl Wire {
    pub(crate) fn new(ingress: &str, name: &str, fault: Fault) -> Self {
        // A request that was begun on a connection that broke is the client's to repeat, not the library's.
        let http = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
        let (ingress, name) = (ingress.to_owned(), name.to_owned());
        Self { http, ingress, fault, name, queries: Cell::new(0), answers: RefCell::default() }
    }

    /// Asks, and waits for the whole answer.
    pub(crate) async fn ask(&self, book: usize, operation: &Operation) -> Heard {
        let request = self.request(book, operation);
        let answer = async {
            let response = self.http.request(request).await.ok()?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some((head, String::from_utf8_lossy(&body).into_owned()))
        };
        let Ok(answer) = tokio::time::timeout(LONGEST_ANSWER, answer).await else {
            return Heard::Wrong(format!("no answer to {operation:?} within {LONGEST_ANSWER:?}"));
        };
        let Some((head, body)) = answer else { return Heard::Lost };
        if head.status == StatusCode::SERVICE_UNAVAILABLE && is_surely_not_applied(&body) {
            return Heard::NotNow;
        }
        let Some(answer) = read(operation, head.status, &body) else {
            return Heard::Wrong(format!("{operation:?} was answered with {}: {body}", head.status));
        };
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let partition = header("hvm-partition").to_owned();
        let replayed = header("idempotency-replayed") == "true";
        Heard::Answer { answer: self.spoil(book, operation, answer), body, replayed, partition }
    }

    fn request(&self, book: usize, operation: &Operation) -> Request<Full<Bytes>> {
        let book = format!("{}/books/{}-{book}", self.ingress, self.name);
        let get = |path: &str| {
            Request::builder().uri(format!("{book}{path}")).body(Full::default()).expect("a valid request")
        };
        match operation {
            Operation::Account(account) => get(&format!("/accounts/{}", account_name(*account))),
            Operation::Sum => get("/sum"),
            Operation::Listing => get(""),
            Operation::Transfer(transfer) => {
                let body = serde_json::json!({
                    "from": account_name(transfer.from),
                    "to": account_name(transfer.to),
                    "amount": transfer.amount,
                });
                let mut request = Request::builder().method(Method::POST).uri(format!("{book}/transfers"));
                if self.fault != Fault::ForgottenKeys {
                    request = request.header("idempotency-key", format!("{}-{}", self.name, transfer.key));
                }
                request.body(Full::from(body.to_string())).expect("a valid request")
            }
        }
    }

    fn spoil(&self, book: usize, operation: &Operation, answer: Answer) -> Answer {
        if self.fault != Fault::StaleReads || operation.is_command() {
            return answer;
        }
        self.queries.set(self.queries.get() + 1);
        let old = self.answers.borrow_mut().insert((book, *operation), answer);
        old.filter(|_| self.queries.get().is_multiple_of(STALE_EVERY)).unwrap_or(answer)
    }
}

/// The refusals that come before a guest is asked.
fn is_surely_not_applied(body: &str) -> bool {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let kind = body["error"]["kind"].as_str().unwrap_or_default();
    ["starting", "no-document", "unplaced", "mailbox-full", "bodies-full", "host-full"].contains(&kind)
}

fn read(operation: &Operation, status: StatusCode, body: &str) -> Option<Answer> {
    if operation.is_command() && status == StatusCode::CONFLICT && body.contains(" lacks ") {
        return Some(Answer::Lacking);
    }
    let json: Value = serde_json::from_str(body).ok()?;
    let number = |value: &Value| value.as_i64();
    match (operation, status) {
        (Operation::Transfer(transfer), StatusCode::CREATED) => {
            let is = |side: &str, account| json[side]["account"] == account_name(account);
            (is("from", transfer.from) && is("to", transfer.to)).then_some(())?;
            let (from, to) = (number(&json["from"]["balance"])?, number(&json["to"]["balance"])?);
            Some(Answer::Moved { transfer: json["transfer"].as_u64()?, from, to })
        }
        (Operation::Account(_), StatusCode::OK) => Some(Answer::Balance(number(&json["balance"])?)),
        (Operation::Sum, StatusCode::OK) => Some(Answer::Sum {
            sum: number(&json["sum"])?,
            accounts: usize::try_from(json["accounts"].as_u64()?).ok()?,
            transfers: json["transfers"].as_u64()?,
        }),
        (Operation::Listing, StatusCode::OK) => {
            let accounts = json["accounts"].as_object()?;
            let mut balances = [None; ACCOUNTS];
            for (account, balance) in balances.iter_mut().enumerate() {
                *balance = accounts.get(&account_name(account)).and_then(number);
            }
            (accounts.len() == balances.iter().flatten().count()).then_some(Answer::Listing(balances))
        }
        _ => None,
    }
}
