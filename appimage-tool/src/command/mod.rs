//! The commands, one module each. A command returns what it prints, except `run`, which prints
//! while it serves; progress goes to standard error.

mod build;
mod dispatch;
mod inspect;
mod keygen;
mod new;
mod pack;
mod run;
mod sign;
mod size_text;
mod verify;

pub(crate) use dispatch::execute;
