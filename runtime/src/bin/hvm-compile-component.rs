//! The process that compiles one component for an HVM, for embedders whose own program has no such mode. It is
//! started by the HVM (see `CompileChild::of_program`) and of no use by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    hvm_runtime::compile_child(&std::env::args().nth(1).unwrap_or_default())
}
