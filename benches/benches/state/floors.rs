//! The floors: the same disk without us. Each stores keys and values of 128 bytes, made durable by one sync a batch, from
//! one thread that has them all at hand.

use std::time::Duration;

use hvm_benches::disk::{self, BareFjall, RawLog};
use redb::{Database, TableDefinition};
use rusqlite::Connection;

use crate::report::{rate, repeat};

const BATCHES: [usize; 5] = [1, 10, 100, 1_000, 4_000];

pub(crate) fn table(each: Duration) -> String {
    let mut table =
        "\n| One thread, records of 128 bytes, one sync a batch | by one | by 10 | by 100 | by 1,000 \
                     | by 4,000 |\n|---|--:|--:|--:|--:|--:|\n"
            .to_owned();
    let mut add = |name: &str, commit: &mut dyn FnMut(usize)| {
        table += &format!("| {name} |");
        for records in BATCHES {
            let (batches, took) = repeat(each, || commit(records));
            table += &format!(" {} |", rate(batches * records, took));
        }
        table.push('\n');
    };
    let mut log = RawLog::default();
    add("a log, one write + fdatasync", &mut |records| log.append(records));
    let mut fjall = BareFjall::default();
    add("bare fjall", &mut |records| fjall.commit(records));
    let mut redb = Redb::new();
    add("redb", &mut |records| redb.commit(records));
    let mut sqlite = Sqlite::new();
    add("SQLite, WAL, synchronous=FULL", &mut |records| sqlite.commit(records));
    table
}

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
const VALUE: [u8; disk::VALUE_BYTES] = [b'r'; disk::VALUE_BYTES];

struct Redb {
    database: Database,
    next: u64,
    _folder: tempfile::TempDir,
}

impl Redb {
    fn new() -> Self {
        let folder = disk::folder();
        let database = Database::create(folder.path().join("redb")).expect("a new database");
        Self { database, next: 0, _folder: folder }
    }

    fn commit(&mut self, records: usize) {
        let transaction = self.database.begin_write().expect("the only writer");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            for _ in 0..records {
                table.insert(disk::key(self.next).as_str(), VALUE.as_slice()).expect("room on the disk");
                self.next += 1;
            }
        }
        transaction.commit().expect("room on the disk");
    }
}

struct Sqlite {
    connection: Connection,
    next: u64,
    _folder: tempfile::TempDir,
}

impl Sqlite {
    fn new() -> Self {
        let folder = disk::folder();
        let connection = Connection::open(folder.path().join("sqlite")).expect("a new database");
        let prepared = connection.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;",
        );
        prepared.expect("a new table");
        Self { connection, next: 0, _folder: folder }
    }

    fn commit(&mut self, records: usize) {
        let transaction = self.connection.transaction().expect("the only writer");
        {
            let insert = "INSERT OR REPLACE INTO state VALUES (?1, ?2)";
            let mut insert = transaction.prepare(insert).expect("valid SQL");
            for _ in 0..records {
                insert.execute((disk::key(self.next), VALUE)).expect("room on the disk");
                self.next += 1;
            }
        }
        transaction.commit().expect("room on the disk");
    }
}
