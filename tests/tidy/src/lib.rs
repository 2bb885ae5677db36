//! The rules of this repository that a machine can check: crate edges, the shape of source files, words,
//! links between documents. Each rule is a function from files to [`Finding`]s, with unit tests that show it
//! failing; `tests/rules.rs` runs all of them over the checkout. It reads; it never changes a file.

mod checkout;
mod finding;
mod rules;
mod rust_code;

pub use checkout::{Checkout, TextFile};
pub use finding::{Finding, assert_none};
pub use rules::{crates, documents, rust_shape, rust_words, scripts, text};
pub use rust_code::RustCode;
