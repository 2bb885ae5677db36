//! How the probe migrates its state: as its configuration says.

use hvm_guest::{Migration, Response, config, kv};

use crate::{fault, host};

/// Does what `migrate` says, after `migrate-ms`. It always writes first: of what fails nothing may be kept.
pub fn answer(migration: Migration) -> Response {
    let ms = setting("migrate-ms").and_then(|ms| ms.parse().ok());
    if let Some(ms) = ms {
        host::sleep(ms);
    }
    let Some(way) = setting("migrate") else { return Response::error(404, "this probe does not migrate") };
    if let Err(error) = write(migration) {
        return error.into();
    }
    match way.as_str() {
        "trap" => fault::trap("", 0),
        "loop" => fault::spin_forever(),
        "huge" => huge().map_or_else(Response::from, |()| Response::status(204)),
        "fail" => Response::error(409, "it was told to fail"),
        _ => Response::status(204),
    }
}

fn setting(key: &str) -> Option<String> {
    config::get(key).ok().flatten()
}

/// A hundred times `n`, and a note of each time this was done: whoever looks sees whether it was once.
fn write(migration: Migration) -> Result<(), kv::Error> {
    let state = kv::open("default")?;
    let n = state.get("n")?.and_then(|n| String::from_utf8(n).ok()?.parse::<u64>().ok()).unwrap_or(0);
    state.set("n", (n * 100).to_string().as_bytes())?;
    let before = state.get("migrations")?.unwrap_or_default();
    let note = format!("{}-{} ", migration.from, migration.to).into_bytes();
    state.set("migrations", &[before, note].concat())
}

/// More than one command may write.
fn huge() -> Result<(), kv::Error> {
    let state = kv::open("default")?;
    let value = vec![b'h'; 1 << 20];
    (0..17).try_for_each(|key| state.set(&format!("huge/{key}"), &value))
}
