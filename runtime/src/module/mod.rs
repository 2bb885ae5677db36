//! Compiled components: checked by name, compiled off the workers, cached on disk, ready to be instantiated.

mod cache;
mod child;
mod code;
mod compile;
mod compiled;
mod flight;
mod imports;
mod linked;
mod order;
mod parent;
mod refused;
mod turns;

pub(crate) use cache::CodeCache;
pub use child::compile_child;
pub(crate) use compile::Compiler;
pub use compiled::Module;
pub(crate) use linked::Linked;
