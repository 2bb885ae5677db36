//! The rules, by what they look at.

pub mod crates;
pub mod documents;
pub mod rust_shape;
pub mod rust_words;
pub mod scripts;
pub mod text;
