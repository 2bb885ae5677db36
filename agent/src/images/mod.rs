//! Images on this host: blobs by digest, fetched from the scheduler and never trusted, and the one way from
//! an image's digest to a verified image.

mod fetch;
mod store;
mod trust;

pub(crate) use fetch::{FetchError, ImageFetch};
pub use store::BlobError;
pub(crate) use store::ImageStore;
pub(crate) use trust::{Trust, TrustError};
