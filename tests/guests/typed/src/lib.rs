//! A typed component that does what it is told, so that tests can ask it for every good and bad thing. `README.md`
//! beside this crate lists the names. With the feature `http` it handles HTTP requests too, and has no state.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use hvm_guest::typed::{Failure, Handler};

struct Typed;

impl Handler for Typed {
    fn command(name: &str, payload: Vec<u8>) -> Result<Vec<u8>, Failure> {
        #[cfg(not(feature = "http"))]
        if let Some(answer) = state::command(name, &payload) {
            return answer;
        }
        both(name, payload)
    }

    fn query(name: &str, payload: Vec<u8>) -> Result<Vec<u8>, Failure> {
        #[cfg(not(feature = "http"))]
        if let Some(answer) = state::query(name, &payload) {
            return answer;
        }
        both(name, payload)
    }

    #[cfg(not(feature = "http"))]
    fn migrate(migration: hvm_guest::Migration) -> Result<(), Failure> {
        state::migrate(migration)
    }
}

/// What commands and queries can do alike.
fn both(name: &str, payload: Vec<u8>) -> Result<Vec<u8>, Failure> {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    match name {
        "echo" => Ok(payload),
        "count-in-memory" => Ok((ASKED.fetch_add(1, Ordering::Relaxed) + 1).to_string().into_bytes()),
        "zeros" => {
            let length = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok());
            Ok(vec![0; length.ok_or_else(|| Failure::invalid("the payload is a number of bytes"))?])
        }
        "fail" => Err(Failure::denied(String::from_utf8_lossy(&payload))),
        "trap" => trap(),
        "loop" => spin_forever(),
        "spin" => Ok(spin(2_000_000).to_string().into_bytes()),
        _ => Err(Failure::not_found(format!("there is no `{name}`"))),
    }
}

fn trap() -> ! {
    panic!("the guest was asked to panic")
}

/// Work that no compiler takes away.
fn spin(turns: u64) -> u64 {
    (0..turns).fold(0, |sum, turn| black_box(sum ^ turn))
}

fn spin_forever() -> ! {
    loop {
        black_box(spin(1_000));
    }
}

hvm_guest::export_typed!(Typed);

#[cfg(not(feature = "http"))]
mod state {
    use hvm_guest::typed::Failure;
    use hvm_guest::{Migration, kv};

    /// The one key.
    const KEY: &str = "a";

    type Answer = Result<Vec<u8>, Failure>;

    pub fn command(name: &str, payload: &[u8]) -> Option<Answer> {
        Some(match name {
            "set" => set(payload),
            "set-then-fail" => set(payload).and_then(|_| Err(Failure::conflict("it was told to fail"))),
            "set-then-trap" => set(payload).and_then(|_| super::trap()),
            "set-then-loop" => set(payload).and_then(|_| super::spin_forever()),
            "increment" => increment(),
            _ => return None,
        })
    }

    pub fn query(name: &str, payload: &[u8]) -> Option<Answer> {
        match name {
            "get" => Some(get()),
            "write" => Some(set(payload)),
            _ => None,
        }
    }

    fn set(value: &[u8]) -> Answer {
        kv::open("default")?.set(KEY, value)?;
        Ok(Vec::new())
    }

    pub fn migrate(migration: Migration) -> Result<(), Failure> {
        let state = kv::open("default")?;
        let before = state.get(KEY)?.unwrap_or_default();
        let note = format!("{}-{} ", migration.from, migration.to).into_bytes();
        Ok(state.set(KEY, &[before, note].concat())?)
    }

    fn get() -> Answer {
        kv::open("default")?.get(KEY)?.ok_or_else(|| Failure::not_found("it has no value"))
    }

    fn increment() -> Answer {
        Ok(kv::open("default")?.increment(KEY, 1)?.to_string().into_bytes())
    }
}

#[cfg(feature = "http")]
mod http {
    use hvm_guest::{Request, Response};

    fn handle(_request: Request) -> Response {
        Response::text("by http\n")
    }

    hvm_guest::export!(handle);
}
