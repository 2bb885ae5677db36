//! Planted faults, to see that the simulation finds them. Nothing of this is there without the feature
//! `planted-faults`.

/// What the engine does wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Answer after the write, without a sync.
    pub(super) skip_sync: bool,
    /// Answer before the write.
    pub(super) acknowledge_early: bool,
    /// Don't compare a record's epoch.
    pub(super) drop_fence: bool,
    /// Don't store the epoch of an opening, so that it is given again after a restart.
    pub(super) reuse_epoch: bool,
    /// Don't look whether a key was applied.
    pub(super) forget_window: bool,
}
