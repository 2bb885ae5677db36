//! Where host tests find the components of the guests: in the directory that `HVM_GUESTS` names, else in the one that
//! `tests/guests/build` makes. Builds none of them itself, but for the bomb, which no compiler makes.

mod bomb;
mod guest;

pub use bomb::compile_bomb;
pub use guest::{Guest, component};
