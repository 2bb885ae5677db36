//! Images' bytes: files `blobs/sha256/<hex>` in the data directory, whole and checked; what is still
//! arriving stands in `partial/<hex>`.
//!
//! Nothing is ever deleted here: images are few, and removing what no deployment names is not built.

mod error;
mod receive;
mod store;

pub(crate) use error::BlobError;
pub(crate) use receive::Receiving;
pub(crate) use store::BlobStore;
