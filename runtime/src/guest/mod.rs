//! A guest: what one instance of a component holds on the host's side, and how a request passes through it.

mod bounded;
mod call;
mod dump;
mod fuel;
mod handle;
mod handles;
mod instance;
mod linker;
mod on_behalf;
mod outgoing;
mod state;
mod typed;
mod unsent;

pub(crate) use call::{answer_whole, stream_answer};
pub(crate) use dump::discard;
pub(crate) use handle::{Disposal, InstanceHandle};
pub(crate) use instance::Instance;
pub(crate) use linker::linker;
pub(crate) use outgoing::{Outgoing, OutgoingPolicy};
pub(crate) use state::{GuestSettings, GuestState};
pub(crate) use typed::{Answered, TypedIndices};
