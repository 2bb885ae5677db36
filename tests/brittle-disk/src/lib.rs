//! A file system for tests, mounted with FUSE, whose power can be cut: what was not synced is then lost, in part lost,
//! or torn. Its syncs fail or hang when told to.
//!
//! It is below whole processes, and needs nothing from them: whatever they call, the kernel brings it here. The
//! files are in the memory of the test's process, so they outlive every process that is killed, as the page cache
//! does, and end with the test.
//!
//! What a cut may take ([`Disk::cut_power`]) is what ext4 in its default mode (`data=ordered`, kernel documentation,
//! `filesystems/ext4`) may take, and somewhat more:
//!
//! - Changes of names, and sizes that were set, reach the disk in their order: a cut keeps a beginning of them. A sync
//!   of a directory, or of a file that one of them concerns, brings all of them to the disk.
//! - Bytes that were written reach the disk in any order, by pages of 4 KiB, and a page that was under way by sectors of
//!   512 bytes. A file that was grown by writing ends anywhere between its old and its new end; in between, what is
//!   missing reads as zeros. Only a sync of this file makes its bytes stay.
//! - A renamed file is not synced by that: ext4 would do so where a file is replaced.
//!
//! A sync that fails loses what it should have brought to the disk, though it can still be read until the power is cut:
//! so Linux does since 4.13 ("fsyncgate").
//!
//! All changes and syncs after a chosen one fail on request, so that a cut can be placed between any two of them, and
//! the whole disk can be put back to an earlier state.
//!
//! Not offered: links, devices, extended attributes, locks other than the kernel's own, a full disk.
//! Mounting needs `/dev/fuse` and the right to mount.

mod content;
mod disk;
mod mounted;
mod names;
mod power;
mod syncs;

pub use disk::{BrittleDisk, Disk, Image};
pub use power::Cut;
pub use syncs::SyncRule;
