//! Turns what criterion wrote into one table: each measurement beside its floor, ratios first.
//!
//! The benches themselves are in `benches/hvm`. Each is a criterion group whose name says what is measured; its
//! function [`SUBJECT`] is ours, every other one is a floor and says by its name what that floor is.

pub mod bare;
pub mod disk;
pub mod load;
mod results;
mod stolen;
mod table;

pub use results::{Results, ResultsError, SUBJECT};
pub use stolen::Stolen;
pub use table::markdown;
