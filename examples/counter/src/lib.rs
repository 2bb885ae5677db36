//! Counters by name: the command `counters/{name}` adds the number in its payload, the query of the same name reads.

use hvm_guest::kv;
use hvm_guest::typed::{Failure, Handler};

struct Counters;

impl Handler for Counters {
    fn command(name: &str, payload: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let counter = counter_of(name)?;
        let delta = std::str::from_utf8(&payload).ok().and_then(|text| text.trim().parse().ok());
        let delta = delta.ok_or_else(|| Failure::invalid("the payload is a number to add, such as 1"))?;
        Ok(kv::open("default")?.increment(counter, delta)?.to_string().into_bytes())
    }

    fn query(name: &str, _payload: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let counter = counter_of(name)?;
        let none = || Failure::not_found(format!("nobody has counted `{counter}` yet"));
        kv::open("default")?.get(counter)?.ok_or_else(none)
    }
}

fn counter_of(name: &str) -> Result<&str, Failure> {
    let counter = name.strip_prefix("counters/").filter(|counter| !counter.is_empty());
    counter.ok_or_else(|| Failure::not_found("names begin with `counters/`"))
}

hvm_guest::export_typed!(Counters);
