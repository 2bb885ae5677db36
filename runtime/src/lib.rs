//! The HVM: runs partitions of apps as WebAssembly components.

pub mod egress;
pub mod state;
