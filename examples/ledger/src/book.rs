//! One book in the partition's state: a balance for each account, and how many transfers there were.

use std::collections::BTreeMap;

use hvm_guest::{Response, kv};
use serde::Serialize;

use crate::name::Name;

/// The one account that may be overdrawn.
const BANK: &str = "bank";
/// Balances read at once.
const BATCH: usize = 256;

/// A book that exists as soon as somebody transfers in it.
pub struct Book {
    name: Name,
    state: kv::Bucket,
}

/// An account and what is on it.
#[derive(Serialize)]
pub struct Account {
    account: String,
    balance: i64,
}

/// The answer to a transfer.
#[derive(Serialize)]
pub struct Entry {
    /// Counted from 1 in each book.
    transfer: u64,
    from: Account,
    to: Account,
}

/// All accounts of a book.
#[derive(Serialize)]
pub struct Listing {
    book: String,
    accounts: BTreeMap<String, i64>,
}

/// What an auditor asks.
#[derive(Serialize)]
pub struct Sum {
    book: String,
    /// Over all accounts; anything but zero is a fault.
    sum: i128,
    accounts: usize,
    transfers: u64,
}

impl Book {
    pub fn open(name: Name) -> Result<Self, Response> {
        Ok(Self { name, state: kv::open("default")? })
    }

    fn account_prefix(&self) -> String {
        format!("{}/account/", self.name.as_str())
    }

    fn account_key(&self, account: &Name) -> String {
        format!("{}{}", self.account_prefix(), account.as_str())
    }

    fn transfers_key(&self) -> String {
        format!("{}/transfers", self.name.as_str())
    }

    fn balance(&self, account: &Name) -> Result<i64, Response> {
        let key = self.account_key(account);
        self.state.get(&key)?.map_or(Ok(0), |bytes| parse(&key, &bytes))
    }

    fn transfers(&self) -> Result<u64, Response> {
        let key = self.transfers_key();
        self.state.get(&key)?.map_or(Ok(0), |bytes| parse(&key, &bytes))
    }

    /// An account that nobody used yet has balance 0.
    pub fn account(&self, account: &Name) -> Result<Account, Response> {
        Ok(Account { account: account.as_str().to_owned(), balance: self.balance(account)? })
    }

    /// Moves `amount`, or nothing.
    pub fn transfer(&self, from: &Name, to: &Name, amount: i64) -> Result<Entry, Response> {
        let full =
            |name: &Name| Response::error(409, &format!("account {} can't hold more digits", name.as_str()));
        let debited = self.balance(from)?.checked_sub(amount).ok_or_else(|| full(from))?;
        let credited = self.balance(to)?.checked_add(amount).ok_or_else(|| full(to))?;
        if debited < 0 && from.as_str() != BANK {
            let missing = debited.unsigned_abs();
            return Err(Response::error(409, &format!("account {} lacks {missing} for this", from.as_str())));
        }
        self.state.set(&self.account_key(from), debited.to_string().as_bytes())?;
        self.state.set(&self.account_key(to), credited.to_string().as_bytes())?;
        let transfer = self.transfers()? + 1;
        self.state.set(&self.transfers_key(), transfer.to_string().as_bytes())?;
        Ok(Entry {
            transfer,
            from: Account { account: from.as_str().to_owned(), balance: debited },
            to: Account { account: to.as_str().to_owned(), balance: credited },
        })
    }

    fn balances(&self) -> Result<BTreeMap<String, i64>, Response> {
        let prefix = self.account_prefix();
        let keys: Vec<String> =
            self.state.list_keys()?.into_iter().filter(|key| key.starts_with(&prefix)).collect();
        let mut balances = BTreeMap::new();
        for batch in keys.chunks(BATCH) {
            for (key, value) in batch.iter().zip(self.state.get_many(batch)?) {
                let bytes = value
                    .ok_or_else(|| Response::error(500, &format!("`{key}` is listed but has no value")))?;
                balances.insert(key[prefix.len()..].to_owned(), parse(key, &bytes)?);
            }
        }
        Ok(balances)
    }

    pub fn listing(&self) -> Result<Listing, Response> {
        Ok(Listing { book: self.name.as_str().to_owned(), accounts: self.balances()? })
    }

    pub fn sum(&self) -> Result<Sum, Response> {
        let balances = self.balances()?;
        Ok(Sum {
            book: self.name.as_str().to_owned(),
            sum: balances.values().map(|balance| i128::from(*balance)).sum(),
            accounts: balances.len(),
            transfers: self.transfers()?,
        })
    }
}

/// Numbers are stored as decimal text.
fn parse<T: std::str::FromStr>(key: &str, bytes: &[u8]) -> Result<T, Response> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Response::error(500, &format!("what is stored under `{key}` is no number")))
}
