//! The judge judged: histories that have an order, and histories that have none.

use std::collections::BTreeSet;

use crate::book::{ACCOUNTS, Answer, BANK, Book, Operation, Transfer};
use crate::order::{Call, NoOrder, outcomes};

const ALICE: usize = 1;
const BOB: usize = 2;

fn call(begun: u64, ended: u64, operation: Operation, answer: Answer) -> Call {
    Call { begun, ended, operation, answer: Some(answer) }
}

fn unanswered(begun: u64, operation: Operation) -> Call {
    Call { begun, ended: u64::MAX, operation, answer: None }
}

/// The bank pays to an account.
fn pay(key: u64, to: usize, amount: i64) -> Operation {
    Operation::Transfer(Transfer { key, from: BANK, to, amount })
}

fn moved(transfer: u64, from: i64, to: i64) -> Answer {
    Answer::Moved { transfer, from, to }
}

fn judge(calls: &[Call]) -> Result<BTreeSet<Book>, NoOrder> {
    outcomes(&BTreeSet::from([Book::default()]), calls)
}

fn balances(books: &BTreeSet<Book>, account: usize) -> Vec<i64> {
    books.iter().map(|book| book.balances[account].unwrap_or(0)).collect()
}

#[test]
fn calls_that_overlap_may_stand_in_either_order() {
    let overlapping = [
        call(1, 10, pay(1, ALICE, 5), moved(2, -12, 5)),
        call(2, 9, pay(2, BOB, 7), moved(1, -7, 7)),
        call(3, 4, Operation::Account(ALICE), Answer::Balance(0)),
        call(5, 11, Operation::Account(ALICE), Answer::Balance(5)),
    ];
    let books = judge(&overlapping).expect("the second transfer came first");
    assert_eq!((balances(&books, ALICE), balances(&books, BOB)), (vec![5], vec![7]));
}

#[test]
fn a_stale_read_has_no_order() {
    let history = [
        call(1, 2, pay(1, ALICE, 5), moved(1, -5, 5)),
        call(3, 4, Operation::Account(ALICE), Answer::Balance(0)),
    ];
    assert!(judge(&history).is_err());
    // The same while the transfer is still under way is none.
    let history = [
        call(1, 5, pay(1, ALICE, 5), moved(1, -5, 5)),
        call(3, 4, Operation::Account(ALICE), Answer::Balance(0)),
    ];
    assert!(judge(&history).is_ok());
}

#[test]
fn reads_that_see_a_transfer_and_then_do_not_have_no_order() {
    let history = [
        call(1, 20, pay(1, ALICE, 5), moved(1, -5, 5)),
        call(2, 3, Operation::Account(ALICE), Answer::Balance(5)),
        call(4, 5, Operation::Account(ALICE), Answer::Balance(0)),
    ];
    assert!(judge(&history).is_err());
}

#[test]
fn a_lost_update_has_no_order() {
    let history =
        [call(1, 4, pay(1, ALICE, 5), moved(1, -5, 5)), call(2, 5, pay(2, ALICE, 7), moved(2, -12, 7))];
    assert!(judge(&history).is_err(), "the second did not see the first");
    let history = [
        call(1, 2, pay(1, ALICE, 5), moved(1, -5, 5)),
        call(3, 4, pay(2, ALICE, 7), moved(2, -12, 12)),
        call(5, 6, Operation::Account(ALICE), Answer::Balance(5)),
    ];
    assert!(judge(&history).is_err(), "the second was acknowledged and is gone");
}

#[test]
fn a_value_out_of_nowhere_has_no_order() {
    let read = call(3, 4, Operation::Account(ALICE), Answer::Balance(9));
    assert!(judge(&[call(1, 2, pay(1, ALICE, 5), moved(1, -5, 5)), read]).is_err());
    assert!(judge(&[read]).is_err());
    // Nor may an answer come before its question.
    assert!(judge(&[read, call(5, 6, pay(1, ALICE, 9), moved(1, -9, 9))]).is_err());
}

#[test]
fn a_half_applied_transfer_has_no_order() {
    let mut half = [None; ACCOUNTS];
    half[ALICE] = Some(5);
    let history = [unanswered(1, pay(1, ALICE, 5)), call(2, 3, Operation::Listing, Answer::Listing(half))];
    assert!(judge(&history).is_err());
    let sum = Answer::Sum { sum: 5, accounts: 2, transfers: 1 };
    assert!(judge(&[unanswered(1, pay(1, ALICE, 5)), call(2, 3, Operation::Sum, sum)]).is_err());
}

#[test]
fn an_unanswered_transfer_may_be_there_or_not_until_somebody_looks() {
    let lost = unanswered(1, pay(1, ALICE, 5));
    let books = judge(&[lost]).expect("both");
    assert_eq!(balances(&books, ALICE), [0, 5]);
    let seen = call(8, 9, Operation::Account(ALICE), Answer::Balance(5));
    let not_yet = call(2, 3, Operation::Account(ALICE), Answer::Balance(0));
    let books = judge(&[lost, not_yet, seen]).expect("it took effect late");
    assert_eq!(balances(&books, ALICE), [5]);
    let again_not = call(10, 11, Operation::Account(ALICE), Answer::Balance(0));
    assert!(judge(&[lost, seen, again_not]).is_err(), "it can't go again");
    let before = call(0, 1, Operation::Account(ALICE), Answer::Balance(5));
    assert!(judge(&[unanswered(2, pay(1, ALICE, 5)), before]).is_err(), "nor be seen before it began");
}

#[test]
fn a_key_is_applied_once_and_its_answer_stays() {
    let first = call(1, 2, pay(1, ALICE, 5), moved(1, -5, 5));
    let same = call(3, 4, pay(1, ALICE, 5), moved(1, -5, 5));
    let other = call(3, 4, pay(1, ALICE, 5), moved(2, -10, 10));
    assert_eq!(balances(&judge(&[first, same]).expect("a repetition"), ALICE), [5]);
    assert!(judge(&[first, other]).is_err(), "applied twice");

    // Unanswered at first and sent again, with another transfer in between.
    let lost = Call { ended: 5, ..unanswered(3, pay(2, ALICE, 7)) };
    let between = |answer| call(10, 11, pay(3, ALICE, 1), answer);
    let again = |answer| call(12, 13, pay(2, ALICE, 7), answer);
    let was_there = [first, lost, between(moved(3, -13, 13)), again(moved(2, -12, 12))];
    assert!(judge(&was_there).is_ok(), "it was there, and so was its answer");
    let was_not = [first, lost, between(moved(2, -6, 6)), again(moved(3, -13, 13))];
    assert!(judge(&was_not).is_ok(), "it was not there");
    let twice = [first, lost, between(moved(3, -13, 13)), again(moved(4, -20, 20))];
    assert!(judge(&twice).is_err(), "it was there and is applied again");
}

#[test]
fn what_was_not_there_when_its_process_ended_does_not_come_later() {
    let lost = Call { ended: 2, ..unanswered(1, pay(1, ALICE, 5)) };
    let read = |begun, balance| call(begun, begun + 1, Operation::Account(ALICE), Answer::Balance(balance));
    assert!(judge(&[lost, read(3, 0), read(5, 0)]).is_ok());
    assert!(judge(&[lost, read(3, 5), read(5, 5)]).is_ok());
    assert!(judge(&[lost, read(3, 0), read(5, 5)]).is_err());
}

#[test]
fn a_refusal_needs_an_account_that_lacks_the_money() {
    let take = Operation::Transfer(Transfer { key: 9, from: ALICE, to: BANK, amount: 3 });
    let paid = call(1, 2, pay(1, ALICE, 5), moved(1, -5, 5));
    assert!(judge(&[call(0, 3, take, Answer::Lacking), paid]).is_ok(), "it came first");
    assert!(judge(&[paid, call(3, 4, take, Answer::Lacking)]).is_err());
}

#[test]
fn a_long_history_of_many_clients_is_judged_in_little_work() {
    // Sixteen clients, each with one transfer under way at any time, and a reader.
    let mut calls = Vec::new();
    for number in 0..4000_u64 {
        let total = i64::try_from(number + 1).expect("a small number");
        let (begun, ended) = (number * 10, number * 10 + 160);
        calls.push(call(begun, ended, pay(number, ALICE, 1), moved(number + 1, -total, total)));
        calls.push(call(begun + 1, ended, Operation::Account(ALICE), Answer::Balance(total)));
    }
    let books = judge(&calls).expect("the order of their numbers");
    assert_eq!(balances(&books, ALICE), [4000]);
    let (end, late) = (400_000, 400_001);
    calls.push(call(end, late, Operation::Account(ALICE), Answer::Balance(3999)));
    assert!(judge(&calls).is_err());
}
