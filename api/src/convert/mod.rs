//! Messages ↔ domain types, one file per subject.

mod assignment;
mod image;
mod meter;
mod status;
#[cfg(test)]
mod tests;
mod text;
