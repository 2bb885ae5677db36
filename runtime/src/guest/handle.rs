//! Who holds an instance, and where a large one goes: giving megabytes back to the system takes milliseconds, which a
//! worker does not have. A thread of its own does it; what is small goes at once.

use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::Instance;
use crate::memory::Leaves;
use crate::worker::Local;

/// An instance that holds more goes on the other thread. What a warm slot keeps, the pool clears quickly.
const LARGE_BYTES: u64 = 2 << 20;
/// Instances that wait there; one more goes where it is. They are in the account of their partition until they are gone.
const MOST_WAITING: usize = 64;

/// An instance, until it goes. In a box, because each request moves one out and back in.
pub(crate) struct InstanceHandle(Option<Box<Instance>>);

impl InstanceHandle {
    pub(crate) fn new(instance: Instance) -> Self {
        Self(Some(Box::new(instance)))
    }

    /// Drops it now: whoever asks needs its memory, or its place.
    pub(crate) fn drop_here(mut self) {
        self.0.take();
    }

    /// It, for whoever lets it go in another way.
    pub(super) fn into_inner(mut self) -> Option<Box<Instance>> {
        self.0.take()
    }
}

/// Only what ends the handle takes it out.
const HELD: &str = "an instance is held until it is dropped";

impl Deref for InstanceHandle {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        self.0.as_ref().expect(HELD)
    }
}

impl DerefMut for InstanceHandle {
    fn deref_mut(&mut self) -> &mut Instance {
        self.0.as_mut().expect(HELD)
    }
}

impl Drop for InstanceHandle {
    fn drop(&mut self) {
        if let Some(mut instance) = self.0.take()
            && instance.held_bytes() > LARGE_BYTES
            && let Some(local) = Local::current()
        {
            // Here, where its partition is still open: a call that was broken off has not been charged.
            instance.store.charge();
            local.host.disposal.take(instance);
        }
    }
}

/// The thread that drops large instances. It begins with the first one and ends with this.
#[derive(Default)]
pub(crate) struct Disposal(OnceLock<Option<SyncSender<Leaving>>>);

/// An instance that is going.
struct Leaving {
    // Order matters: who waits for its memory is told when it is gone.
    _instance: Box<Instance>,
    _leaves: Leaves,
}

impl Disposal {
    fn take(&self, instance: Box<Instance>) {
        let leaves = instance.leaves();
        let leaving = Leaving { _instance: instance, _leaves: leaves };
        // Where there is no thread, or no room before it, it goes here.
        if let Some(queue) = self.0.get_or_init(start)
            && let Err(refused) = queue.try_send(leaving)
        {
            drop(refused);
        }
    }
}

fn start() -> Option<SyncSender<Leaving>> {
    let (sender, receiver) = sync_channel(MOST_WAITING);
    let thread = std::thread::Builder::new().name("hvm-disposal".to_owned());
    match thread.spawn(move || drop_all(&receiver)) {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::warn!(%error, "large instances go on the workers: no thread can be started for them");
            None
        }
    }
}

fn drop_all(queue: &Receiver<Leaving>) {
    while let Ok(leaving) = queue.recv() {
        drop(leaving);
    }
}
