//! What a local engine is told, and the seam through which it learns how full its disk is.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hvm_types::ByteSize;

#[cfg(feature = "planted-faults")]
use super::faults::Faults;
use crate::state::IdempotencyWindow;

/// Configuration of a local engine. [`LocalConfig::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Directory of the state; made where it does not exist. One process has it at a time.
    pub directory: PathBuf,
    /// Free space below which nothing is committed. It leaves room for the database's own rewriting: a
    /// merge of its tables needs up to about 64 MiB for a while. Bytes that are in the journal and not in
    /// tables yet are reserved on top.
    pub reserve: ByteSize,
    /// How long answers of idempotency keys are kept.
    pub window: IdempotencyWindow,
    /// Memory for blocks of tables.
    pub cache: ByteSize,
    /// Most records that wait for the disk; more are refused as busy.
    pub queue_records: usize,
    /// Most bytes of records that wait for the disk; more are refused as busy.
    pub queue_bytes: ByteSize,
    /// How the free space is measured.
    pub free_space: FreeSpace,
    #[cfg(feature = "planted-faults")]
    pub(super) faults: Faults,
}

impl LocalConfig {
    /// The defaults, for state in `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            reserve: ByteSize::mib(64),
            window: IdempotencyWindow::default(),
            cache: ByteSize::mib(32),
            queue_records: 65_536,
            queue_bytes: ByteSize::mib(256),
            free_space: FreeSpace::of_file_system(),
            #[cfg(feature = "planted-faults")]
            faults: Faults::default(),
        }
    }
}

type Measure = dyn Fn(&Path) -> io::Result<ByteSize> + Send + Sync;

/// Measures the free space of the disk that a path is on.
#[derive(Clone)]
pub struct FreeSpace(Arc<Measure>);

impl FreeSpace {
    /// What the file system says is free for this process: statvfs(3).
    #[must_use]
    pub fn of_file_system() -> Self {
        Self::new(|path| {
            let stat = rustix::fs::statvfs(path)?;
            Ok(ByteSize(stat.f_bavail.saturating_mul(stat.f_frsize)))
        })
    }

    /// Another measure: tests make a disk full with it.
    #[must_use]
    pub fn new(measure: impl Fn(&Path) -> io::Result<ByteSize> + Send + Sync + 'static) -> Self {
        Self(Arc::new(measure))
    }

    pub(super) fn measure(&self, path: &Path) -> io::Result<ByteSize> {
        (self.0)(path)
    }
}

impl fmt::Debug for FreeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreeSpace")
    }
}
