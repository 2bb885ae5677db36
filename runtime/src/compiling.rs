//! How components are compiled: in this process, or each in a child process that can be bounded and killed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use hvm_types::ByteSize;

/// How components are compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiling {
    /// In this process, one component at a time, on all cores. Nothing but the component's size bounds time and
    /// memory, and a thread can't be killed: for components that whoever runs the program wrote.
    InProcess,
    /// Each in a process of its own, two at a time.
    Child(CompileChild),
}

/// The child process that compiles one component, and its limits.
///
/// It is started without environment and with standard streams only, takes away its own rights before it reads
/// the component, runs at low priority, and dies with its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileChild {
    /// The program. It must be of the same build as this one, or its code is not taken.
    pub program: PathBuf,
    /// What it is started with. One more argument follows, which it hands to [`crate::compile_child`].
    pub arguments: Vec<OsString>,
    /// Memory that it may write to (`RLIMIT_DATA`). Default: 2 GiB.
    pub memory: ByteSize,
    /// Processor time of all its threads together (`RLIMIT_CPU`), in whole seconds. Default: 2 minutes.
    pub cpu: Duration,
    /// How long it may take. A backstop for a child that hangs: at its low priority, a busy host lets a healthy one
    /// wait for long. Default: 1 hour.
    pub wall: Duration,
    /// Most bytes of compiled code (`RLIMIT_FSIZE`). Default: 1 GiB.
    pub code: ByteSize,
}

impl CompileChild {
    /// This very program, also where its file was replaced meanwhile, started with these arguments.
    #[must_use]
    pub fn of_this_program(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { arguments, ..Self::of_program("/proc/self/exe") }
    }

    /// A program that does nothing else than [`crate::compile_child`], such as `hvm-compile-component` of this
    /// crate.
    #[must_use]
    pub fn of_program(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            memory: ByteSize::mib(2048),
            cpu: Duration::from_secs(120),
            wall: Duration::from_secs(3600),
            code: ByteSize::mib(1024),
        }
    }
}
