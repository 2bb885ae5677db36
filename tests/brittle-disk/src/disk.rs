//! A mounted disk, and the handle that a test holds.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use fuser::{BackgroundSession, Config, MountOption};

use crate::mounted::Mounted;
use crate::names::{Body, Node};
use crate::power::{Cut, Power};
use crate::syncs::{SyncRule, Syncs};

/// A mounted file system. It is unmounted, and everything in it gone, when this is dropped.
pub struct BrittleDisk {
    disk: Disk,
    _session: BackgroundSession,
}

/// What can be done to the disk from outside.
#[derive(Clone)]
pub struct Disk {
    pub(crate) power: Arc<Mutex<Power>>,
    pub(crate) syncs: Arc<Mutex<Syncs>>,
}

/// All that a disk holds at one moment, synced or not.
#[derive(Clone)]
pub struct Image(Power);

impl BrittleDisk {
    /// Mounts an empty one.
    ///
    /// # Errors
    /// Where it can't be mounted: `/dev/fuse` or the right to mount is missing.
    pub fn mount(at: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let place = std::fs::metadata(at)?;
        let body = Body::Directory(std::collections::BTreeMap::new());
        let root = Node { mode: 0o700, user: place.uid(), group: place.gid(), body };
        let disk =
            Disk { power: Arc::new(Mutex::new(Power::new(root))), syncs: Arc::new(Mutex::new(Syncs::new())) };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("brittle-disk".to_owned()), MountOption::NoAtime];
        let session = fuser::spawn_mount(Mounted::new(disk.clone()), at, &config)?;
        Ok(Self { disk, _session: session })
    }

    /// The handle.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }
}

impl Disk {
    pub(crate) fn power(&self) -> MutexGuard<'_, Power> {
        self.power.lock().expect("no thread panics with it")
    }

    pub(crate) fn syncs(&self) -> MutexGuard<'_, Syncs> {
        self.syncs.lock().expect("no thread panics with it")
    }

    /// Brings everything to the disk.
    pub fn sync_all(&self) {
        self.power().sync_all();
    }

    /// Cuts the power: what processes see is from now on what was safe, and of the rest what `draw` chooses, which
    /// returns a number below its argument. No process may have a file open here.
    pub fn cut_power(&self, draw: &mut dyn FnMut(usize) -> usize) -> Cut {
        for (_, reply) in std::mem::take(&mut self.syncs().held) {
            reply.ok();
        }
        self.power().cut(draw)
    }

    /// Lets so many more changes and syncs pass. Each one after them fails with EIO and does nothing, as if whoever
    /// makes them were no more, until the power is cut or [`go_on`](Self::go_on) is called.
    pub fn stop_after(&self, changes: u64) {
        self.power().limit(Some(changes));
    }

    /// Whether a change or a sync has failed because of [`stop_after`](Self::stop_after).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.power().stopped
    }

    /// Lets everything pass again. Nothing is lost: so it is when a process ends and the power stays.
    pub fn go_on(&self) {
        self.power().limit(None);
    }

    /// What is here now.
    #[must_use]
    pub fn image(&self) -> Image {
        Image(self.power().clone())
    }

    /// Puts everything back to what it was. No process may have a file open here.
    pub fn restore(&self, image: &Image) {
        *self.power() = image.0.clone();
    }

    /// Says what is to happen to syncs from now on. Those that wait go on waiting.
    pub fn rule(&self, rule: SyncRule) {
        self.syncs().rule = rule;
    }

    /// How many syncs wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.syncs().held.len()
    }

    /// How many syncs failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.syncs().failed
    }

    /// Lets all syncs pass, also those that wait.
    pub fn let_go(&self) {
        let held = {
            let mut syncs = self.syncs();
            syncs.rule = SyncRule::Pass;
            std::mem::take(&mut syncs.held)
        };
        for (number, reply) in held {
            self.power().sync(number);
            reply.ok();
        }
    }
}
