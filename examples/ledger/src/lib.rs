//! Double-entry accounts in books: whatever is credited to one account is debited from another, so the sum over all
//! accounts of a book is zero at every moment.
//!
//! Partitioned by book: a transfer stays within one partition, where commands run one after another. Only the account
//! `bank` may be overdrawn; it is where money comes from and goes to.

mod book;
mod name;

use hvm_guest::{Request, Response};
use serde::Deserialize;

use book::Book;
use name::Name;

/// The body of a transfer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    from: String,
    to: String,
    /// In the currency's smallest unit.
    amount: u64,
}

fn handle(request: Request) -> Result<Response, Response> {
    let segments = request.segments();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (request.method.as_str(), parts.as_slice()) {
        ("POST", ["books", book, "transfers"]) => transfer(&open(book)?, &request.json()?),
        ("GET", ["books", book]) => Ok(Response::json(&open(book)?.listing()?)),
        ("GET", ["books", book, "sum"]) => Ok(Response::json(&open(book)?.sum()?)),
        ("GET", ["books", book, "accounts", account]) => {
            Ok(Response::json(&open(book)?.account(&Name::parse("account", account)?)?))
        }
        _ => Err(Response::error(
            404,
            "ask GET /books/{book}, /books/{book}/sum, /books/{book}/accounts/{account}, or POST /books/{book}/transfers",
        )),
    }
}

fn open(book: &str) -> Result<Book, Response> {
    Book::open(Name::parse("book", book)?)
}

fn transfer(book: &Book, transfer: &Transfer) -> Result<Response, Response> {
    let from = Name::parse("account", &transfer.from)?;
    let to = Name::parse("account", &transfer.to)?;
    if from == to {
        return Err(Response::error(400, "a transfer goes from one account to another"));
    }
    let amount = i64::try_from(transfer.amount)
        .ok()
        .filter(|amount| *amount > 0)
        .ok_or_else(|| Response::error(400, "the amount is no whole number from 1 to 9223372036854775807"))?;
    Ok(Response::json(&book.transfer(&from, &to, amount)?).with_status(201))
}

hvm_guest::export!(handle);
