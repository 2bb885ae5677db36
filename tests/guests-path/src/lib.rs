//! Where host tests find the components of the guests: in the directory that `HVM_GUESTS` names, else in the one that
//! `tests/guests/build` makes. Builds nothing itself.

mod guest;

pub use guest::{Guest, component};
