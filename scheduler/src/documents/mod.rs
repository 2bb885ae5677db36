//! What the scheduler keeps in the coordination store, as types.
//!
//! | key | document |
//! |---|---|
//! | `deployments/<name>` | [`DeploymentDocument`]: what was asked |
//! | `ownership/<deployment>/<group>` | [`OwnershipDocument`]: epochs used, and where state lies |
//! | `hosts/<id>/spec` | `HostSpec`: what the host said of itself |
//! | `hosts/<id>/alive` | under the host's lease: which agent it is |
//! | `hosts/<id>/data` | `DataDocument`: whose data directory holds what is told to lie on the host |
//! | `hosts/<id>/assignments` | [`AssignmentDocument`]: what the host runs |
//! | `images/<hex>` | [`StoredImage`]: an image whose blobs are all here |
//!
//! `docs/decisions/0030-scheduler-documents.md` says why they are cut this way.

mod assignment;
mod codec;
mod deployment;
mod group_key;
mod image;
pub(crate) mod key;
mod ownership;
mod world;

pub use assignment::{AssignmentDocument, GroupAssignments, Ownership};
pub use deployment::{Accepted, DeploymentDocument, StopOrder};
pub use group_key::GroupKey;
pub use image::StoredImage;
pub use ownership::{Home, OwnershipDocument};

pub(crate) use codec::{DocumentError, decode, encode};
pub(crate) use world::{AliveDocument, DataDocument, HostRecord, LoadError, Versioned, World};
