//! Where requests to apps arrive: from a connection to the partition that owns the request's key, here or
//! on another host. It knows nothing of guests; what a partition does with a request is the HVM's matter.

mod accept;
mod answer;
mod body;
mod connection;
mod connections;
mod dispatch;
mod forward;
mod framing;
mod header;
mod key;
mod requests;
mod routing;
mod serving;
mod stalls;

pub(crate) use accept::Ingress;
pub use accept::IngressError;
pub use key::{MAX_KEY_BYTES, partition_of};
pub(crate) use routing::Router;
pub(crate) use serving::{ReadySet, Serving};
