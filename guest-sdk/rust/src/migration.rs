//! Bringing the partition's state into the layout of a new version.
//!
//! An app says in its manifest in which layout it keeps its state, and which older ones it migrates:
//! ```toml
//! [app]
//! name = "greeter"
//! version = "2.0.0"
//! state_schema = 2
//! migrates_from = 1
//! ```
//! The host then asks the new version once for each partition, before its first command, to migrate:
//! ```no_run
//! use hvm_guest::{Migration, Request, Response, kv};
//!
//! fn handle(request: Request) -> Result<Response, kv::Error> {
//!     let count = kv::open("default")?.increment("counts/greetings", 1)?;
//!     Ok(Response::text(format!("hello {}, greeting {count}\n", request.path)))
//! }
//!
//! fn migrate(_migration: Migration) -> Result<Response, kv::Error> {
//!     let state = kv::open("default")?;
//!     if let Some(count) = state.get("greetings")? {
//!         state.set("counts/greetings", &count)?;
//!         state.delete("greetings")?;
//!     }
//!     Ok(Response::status(204))
//! }
//!
//! hvm_guest::export!(handle, migrate = migrate);
//! # fn main() {}
//! ```
//! It is a command: all that it writes is committed at once, with the note that the state is in the new layout, or
//! nothing of it where it answers with 400 or more, panics or takes longer than `migration_deadline`. Then the old
//! version goes on. All that it writes is one record, of 16 MiB at most. Where the app has several packages with state,
//! each is asked; one whose layout is the same answers 204 and does nothing.

use crate::{Handler, IntoResponse, Request, Response};

/// Where the host asks, without the first `/`: in the typed world the name of the command. Nobody else reaches it.
const NAME: &str = ".well-known/hvm/migrate";

/// What the host asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// The layout in which the state is.
    pub from: u32,
    /// The layout in which it shall be: the app's `state_schema`.
    pub to: u32,
}

impl Migration {
    /// What a request asks for, where it asks to migrate. `export!` with `migrate` looks for itself.
    #[must_use]
    pub fn of(request: &Request) -> Option<Self> {
        let name = request.path.strip_prefix('/')?;
        if request.method == "POST" { Self::of_command(name, &request.body) } else { None }
    }

    /// What a command of the typed world asks for, where it asks to migrate.
    #[must_use]
    pub fn of_command(name: &str, payload: &[u8]) -> Option<Self> {
        let asked = std::str::from_utf8(payload).ok().filter(|_| name == NAME)?;
        let number = |key: &str| {
            let value = asked.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))?;
            value.parse().ok()
        };
        Some(Self { from: number("from")?, to: number("to")? })
    }
}

/// Lets the one function migrate and the other do all else.
#[doc(hidden)]
pub fn route<R: IntoResponse>(
    request: Request,
    handler: &impl Handler,
    migrate: impl Fn(Migration) -> R,
) -> Response {
    match Migration::of(&request) {
        Some(migration) => migrate(migration).into_response(),
        None => handler.handle(request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, body: &str) -> Request {
        Request { method: method.into(), path: path.into(), body: body.into(), ..Request::default() }
    }

    #[test]
    fn only_what_the_host_asks_is_a_migration() {
        let asked = request("POST", "/.well-known/hvm/migrate", "from=1&to=3");
        assert_eq!(Migration::of(&asked), Some(Migration { from: 1, to: 3 }));
        for (method, path, body) in [
            ("GET", "/.well-known/hvm/migrate", "from=1&to=3"),
            ("POST", "/.well-known/hvm/migrated", "from=1&to=3"),
            ("POST", "/migrate", "from=1&to=3"),
            ("POST", "/.well-known/hvm/migrate", "from=1"),
            ("POST", "/.well-known/hvm/migrate", "from=one&to=3"),
        ] {
            assert_eq!(Migration::of(&request(method, path, body)), None, "{method} {path} {body}");
        }
    }

    #[test]
    fn all_else_goes_to_the_handler() {
        let handler = |request: Request| Response::text(request.path);
        let migrate = |migration: Migration| Response::text(migration.to.to_string());
        let routed = |path| route(request("POST", path, "from=1&to=2"), &handler, migrate).body;
        assert_eq!(routed("/.well-known/hvm/migrate"), b"2");
        assert_eq!(routed("/a"), b"/a");
    }
}
