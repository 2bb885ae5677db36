//! Compiled components: checked by name, compiled off the workers, cached on disk, ready to be instantiated.

mod cache;
mod child;
mod child_cpu;
mod code;
mod compile;
mod compiled;
mod compilers;
mod flight;
mod imports;
mod linked;
mod order;
mod parent;
mod refused;
mod turns;

pub use child::compile_child;
pub use compiled::Module;
pub(crate) use compilers::Compilers;
pub(crate) use linked::Linked;
