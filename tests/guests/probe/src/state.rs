//! What a guest does with its durable state: `/kv/…`. The bucket is `default` unless `bucket=` says otherwise.

use hvm_guest::kv::{self, Bucket};
use hvm_guest::{Request, Response};

use crate::{fault, host, number};

pub fn answer(action: &str, request: &Request) -> Response {
    open(request).and_then(|bucket| act(action, request, &bucket)).unwrap_or_else(|error| refused(&error))
}

/// `/write-in-get`, which a query may not do; like `/kv/set`.
pub fn set(request: &Request) -> Response {
    answer("set", request)
}

/// 404 for a bucket that is not granted, 403 for a refused write, 500 with the host's words for the rest.
fn refused(error: &kv::Error) -> Response {
    match error {
        kv::Error::NoSuchStore => Response::error(404, "no-such-store"),
        kv::Error::AccessDenied => Response::error(403, "access-denied"),
        kv::Error::Other { reason } => Response::error(500, reason),
    }
}

fn open(request: &Request) -> Result<Bucket, kv::Error> {
    kv::open(&request.query_param("bucket").unwrap_or_else(|| "default".to_owned()))
}

fn key(request: &Request) -> String {
    request.query_param("k").unwrap_or_else(|| "k".to_owned())
}

/// The parameter `v`, else the body.
fn value(request: &Request) -> Vec<u8> {
    request.query_param("v").map_or_else(|| request.body.clone(), String::into_bytes)
}

fn found(value: Option<Vec<u8>>) -> Response {
    value.map_or_else(
        || Response::error(404, "none"),
        |value| Response::bytes("application/octet-stream", value),
    )
}

fn act(action: &str, request: &Request, bucket: &Bucket) -> Result<Response, kv::Error> {
    let key = key(request);
    Ok(match action {
        "get" => found(bucket.get(&key)?),
        "set" => {
            bucket.set(&key, &value(request))?;
            Response::status(204)
        }
        "delete" => {
            bucket.delete(&key)?;
            Response::status(204)
        }
        "exists" => Response::text(bucket.exists(&key)?.to_string()),
        "incr" => Response::text(bucket.increment(&key, number(request, "by").unwrap_or(1))?.to_string()),
        "list" => Response::text(bucket.list_keys()?.into_iter().map(|key| key + "\n").collect::<String>()),
        "cas" => compare_and_set(request, bucket, &key)?,
        "batch" => batch(request, bucket)?,
        "delete-many" => {
            bucket.delete_many(&lines(request))?;
            Response::status(204)
        }
        "fill" => fill(request, bucket)?,
        "set-then-get" => {
            bucket.set(&key, &value(request))?;
            found(bucket.get(&key)?)
        }
        "set-then-fail" => {
            bucket.set(&key, &value(request))?;
            fail(request)
        }
        "get-sleep-get" => {
            let before = bucket.get(&key)?.unwrap_or_default();
            host::sleep(number(request, "ms").unwrap_or(100));
            let after = bucket.get(&key)?.unwrap_or_default();
            Response::text(format!(
                "{} {}",
                String::from_utf8_lossy(&before),
                String::from_utf8_lossy(&after)
            ))
        }
        _ => Response::error(404, "there is no such probe"),
    })
}

/// Sets `k` to `new` if it is `old` (absent counts as empty), else 409 with what it is.
fn compare_and_set(request: &Request, bucket: &Bucket, key: &str) -> Result<Response, kv::Error> {
    let is = bucket.get(key)?.unwrap_or_default();
    if is != request.query_param("old").unwrap_or_default().as_bytes() {
        return Ok(Response::bytes("application/octet-stream", is).with_status(409));
    }
    bucket.set(key, request.query_param("new").unwrap_or_default().as_bytes())?;
    Ok(Response::status(204))
}

fn lines(request: &Request) -> Vec<String> {
    request.text().unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Sets the body's lines `key=value` at once, then reads all of them, and `absent`, at once.
fn batch(request: &Request, bucket: &Bucket) -> Result<Response, kv::Error> {
    let pairs: Vec<(String, Vec<u8>)> = lines(request)
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()))
        .collect();
    bucket.set_many(&pairs)?;
    let mut keys: Vec<String> = pairs.into_iter().map(|(key, _)| key).collect();
    keys.push("absent".to_owned());
    let values = bucket.get_many(&keys)?;
    let shown = keys.iter().zip(values).map(|(key, value)| match value {
        Some(value) => format!("{key}={}\n", String::from_utf8_lossy(&value)),
        None => format!("{key} has none\n"),
    });
    Ok(Response::text(shown.collect::<String>()))
}

/// Sets `n` keys to `size` bytes each.
fn fill(request: &Request, bucket: &Bucket) -> Result<Response, kv::Error> {
    let size = number(request, "size").and_then(|size| usize::try_from(size).ok()).unwrap_or(1024);
    let value = vec![b'f'; size];
    for index in 0..number(request, "n").unwrap_or(1) {
        bucket.set(&format!("fill/{index:08}"), &value)?;
    }
    Ok(Response::status(204))
}

/// Fails after a write: nothing of it may be kept.
fn fail(request: &Request) -> Response {
    match request.query_param("status").as_deref() {
        Some("trap") => fault::trap("", 0),
        Some("loop") => fault::spin_forever(),
        Some(status) => Response::error(status.parse().unwrap_or(500), "failed as asked"),
        None => Response::error(500, "failed as asked"),
    }
}
