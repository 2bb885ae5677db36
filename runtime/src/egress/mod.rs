//! Outgoing HTTP of guests: [`send`] carries one request to an origin that [`EgressPolicy`] grants, over a
//! connection of its own to an address that was checked.
//!
//! - The origin (scheme, host, port) must be on the list: `policy`.
//! - Its name is resolved once; each address is checked, and the connection is made to a checked address
//!   and never to the name, so a second answer of the DNS changes nothing: `address`, `connect`.
//! - Redirects are not followed: the guest sees them, and its next request is checked like its first.
//! - Times, heads and the number of connections are bounded: `exchange`.
//!
//! Whether a command may call out at all is decided before this is asked.

mod address;
mod connect;
mod exchange;
mod failure;
mod lookup;
mod policy;
mod stalling_body;
mod stream;
#[cfg(test)]
mod tests;

pub use exchange::{ConnectionDriver, send};
pub use policy::{EgressPolicy, GrantError, MAX_CONNECTIONS, MAX_GRANTS, Traffic};
