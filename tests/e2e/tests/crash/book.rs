//! What a book of the ledger answers when it is asked one thing after another: the rule that the platform's
//! answers are judged by.

use std::collections::BTreeMap;

/// Accounts of a book. The first is the bank, which may be overdrawn.
pub(crate) const ACCOUNTS: usize = 6;
pub(crate) const BANK: usize = 0;

/// What is on each account; none where nobody used it yet.
pub(crate) type Balances = [Option<i64>; ACCOUNTS];

/// A transfer under its idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Transfer {
    pub(crate) key: u64,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) amount: i64,
}

/// What can be asked of a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    Transfer(Transfer),
    Account(usize),
    Sum,
    Listing,
}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Answer {
    /// The transfer's number in the book and both balances after it.
    Moved {
        transfer: u64,
        from: i64,
        to: i64,
    },
    /// There is too little on the account; nothing was written, and the key is free.
    Lacking,
    Balance(i64),
    Sum {
        sum: i64,
        accounts: usize,
        transfers: u64,
    },
    Listing(Balances),
}

/// A book's whole state.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Book {
    pub(crate) balances: Balances,
    pub(crate) transfers: u64,
    /// The answers under keys that may be asked for again.
    pub(crate) applied: BTreeMap<u64, Answer>,
}

impl Operation {
    pub(crate) fn is_command(&self) -> bool {
        matches!(self, Self::Transfer(_))
    }
}

impl Book {
    /// The answer, and the book after it where it changed.
    pub(crate) fn perform(&self, operation: &Operation) -> (Answer, Option<Self>) {
        match operation {
            Operation::Transfer(transfer) => self.transfer(transfer),
            Operation::Account(account) => (Answer::Balance(self.balance(*account)), None),
            Operation::Listing => (Answer::Listing(self.balances), None),
            Operation::Sum => {
                let known = self.balances.iter().flatten();
                let (sum, accounts) = (known.clone().sum(), known.count());
                (Answer::Sum { sum, accounts, transfers: self.transfers }, None)
            }
        }
    }

    fn balance(&self, account: usize) -> i64 {
        self.balances[account].unwrap_or(0)
    }

    fn transfer(&self, transfer: &Transfer) -> (Answer, Option<Self>) {
        if let Some(answer) = self.applied.get(&transfer.key) {
            return (*answer, None);
        }
        let from = self.balance(transfer.from) - transfer.amount;
        if from < 0 && transfer.from != BANK {
            return (Answer::Lacking, None);
        }
        let to = self.balance(transfer.to) + transfer.amount;
        let mut after = self.clone();
        after.balances[transfer.from] = Some(from);
        after.balances[transfer.to] = Some(to);
        after.transfers += 1;
        let answer = Answer::Moved { transfer: after.transfers, from, to };
        after.applied.insert(transfer.key, answer);
        (answer, Some(after))
    }
}
