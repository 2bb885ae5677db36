//! What an engine keeps at hand of its partitions, made from the log and never the truth itself. The engine's
//! is a database on the host's disk; the simulation has one of a few lines.

use hvm_types::{Epoch, ReplicaId};

use super::image::{Change, Image};
use super::names::LogName;
use crate::state::ReadError;

/// Partitions at hand, and the answers to those who commit.
pub(super) trait Material {
    /// A queued record with its reply.
    type Commit;
    /// Records that are to be committed together.
    type Batch;
    /// What whoever opens a partition gets.
    type Handle;
    /// What is said of a partition.
    type Info;

    /// Checks records, each against those before it. What can't be committed is answered at once.
    fn stage(&mut self, commits: Vec<Self::Commit>) -> Self::Batch;

    /// What the batch changes, one change per partition.
    fn changes(&self, batch: &Self::Batch) -> Vec<Change>;

    /// Takes a partition's records out of a batch: it has a newer owner.
    fn withdraw(&mut self, batch: &mut Self::Batch, id: &ReplicaId);

    /// Answers whoever waits for the batch that its end is unknown. The batch itself may be applied later.
    fn give_up(&mut self, batch: &mut Self::Batch, reason: &str);

    /// Makes the batch visible and then answers. It is in the log, so an error ends the engine.
    fn apply(&mut self, batch: Self::Batch) -> Result<(), String>;

    /// Refuses records that were not staged.
    fn refuse(&mut self, commits: Vec<Self::Commit>, reason: &str);

    /// Replaces a partition by an image, or by an empty one.
    fn install(&mut self, id: &ReplicaId, epoch: Epoch, image: Option<&Image>) -> Result<(), String>;

    /// Gives a partition a newer epoch and keeps its state. Handles of older epochs are fenced.
    fn raise(&mut self, id: &ReplicaId, epoch: Epoch) -> Result<(), String>;

    /// A handle of a partition that was installed.
    fn handle(&self, id: &ReplicaId) -> Option<Self::Handle>;

    /// Fences all handles of a partition; its state stays as it is.
    fn fence(&mut self, id: &ReplicaId, newest: Epoch);

    /// Forgets a partition. Its handles say why: it was removed, or this engine has lost it.
    fn remove(&mut self, id: &ReplicaId) -> Result<(), String>;

    /// The state of a partition, as of the last batch that was applied.
    fn image(&self, id: &ReplicaId) -> Result<Image, String>;

    /// What there is to say of a partition that the writer of `log` has claimed: one at hand, or one of which this is
    /// the image.
    fn info(
        &self,
        id: &ReplicaId,
        epoch: Epoch,
        log: &LogName,
        image: Option<&Image>,
    ) -> Result<Self::Info, ReadError>;
}
