//! Compiled components: checked by name, compiled off the workers, cached on disk, ready to be instantiated.

mod cache;
mod compile;
mod compiled;
mod imports;

pub(crate) use cache::CodeCache;
pub(crate) use compile::Compiler;
pub use compiled::Module;
