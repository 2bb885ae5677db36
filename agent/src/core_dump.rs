//! A core dump for an operator who waits for it: of whichever selected guest is stopped first. It goes from the guest's
//! memory into the answer; nothing of it is kept here.

use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _, stream};
use hvm_api::limit::CHUNK_MAX_BYTES;
use hvm_api::{ErrorKind, Failure, v1};
use hvm_runtime::{CoreDump, CoreDumpError, CoreDumpWait, Hvm};
use hvm_types::ReplicaId;
use tonic::Status;

use crate::logs::Prefix;

/// Partitions that one operator may wait for at a time.
const MAX_WAITING: usize = 1_000;

/// Waits for the selected partitions of this host. Who stops reading waits no more.
pub(crate) fn core_dump(
    hvm: &Hvm,
    prefix: &Prefix,
    after: Option<Duration>,
) -> Result<impl Stream<Item = Result<v1::CoreDumpPart, Status>> + Send + use<>, Failure> {
    let selected = hvm.observe().into_iter().map(|status| status.id).filter(|id| prefix.selects(id));
    let selected: Vec<ReplicaId> = selected.take(MAX_WAITING + 1).collect();
    if selected.is_empty() {
        return Err(Failure::new(ErrorKind::NotFound, "no such partition runs on this host"));
    }
    if selected.len() > MAX_WAITING {
        let text = format!("more than {MAX_WAITING} partitions of one host are selected: select fewer");
        return Err(Failure::new(ErrorKind::Invalid, text));
    }
    let waits: Result<Vec<_>, _> = selected.iter().map(|id| hvm.core_dump(id, after)).collect();
    let waits = waits.map_err(|error| failure(&error))?;
    let waiting = u32::try_from(waits.len()).unwrap_or(u32::MAX);
    let armed = v1::CoreDumpPart { waiting, ..Default::default() };
    let dump = stream::once(first(waits)).flat_map(|dump| match dump {
        Ok(dump) => stream::iter(parts(dump)).map(Ok).left_stream(),
        Err(error) => stream::iter([Err(failure(&error).into())]).right_stream(),
    });
    Ok(stream::iter([Ok(armed)]).chain(dump))
}

/// The first dump, or why there will be none. Partitions that are closed meanwhile leave the others.
async fn first(waits: Vec<CoreDumpWait>) -> Result<CoreDump, CoreDumpError> {
    let mut waits: FuturesUnordered<_> = waits.into_iter().map(CoreDumpWait::wait).collect();
    loop {
        match waits.next().await {
            Some(Err(CoreDumpError::Gone { .. })) if !waits.is_empty() => {}
            Some(dump) => return dump,
            None => std::future::pending().await,
        }
    }
}

fn parts(dump: CoreDump) -> impl Iterator<Item = v1::CoreDumpPart> + Send {
    let stopped = v1::StoppedGuest {
        replica: dump.id.to_string(),
        request: dump.request,
        reason: dump.trap.to_string(),
        frames: dump.frames,
        bytes: dump.bytes.len() as u64,
    };
    let head = v1::CoreDumpPart { stopped: Some(stopped), ..Default::default() };
    let bytes = bytes::Bytes::from(dump.bytes);
    let pieces = (0..bytes.len()).step_by(CHUNK_MAX_BYTES).map(move |from| {
        let data = bytes[from..bytes.len().min(from + CHUNK_MAX_BYTES)].to_vec();
        v1::CoreDumpPart { data, ..Default::default() }
    });
    std::iter::once(head).chain(pieces)
}

fn failure(error: &CoreDumpError) -> Failure {
    let kind = match error {
        CoreDumpError::Unknown { .. } => ErrorKind::NotFound,
        CoreDumpError::Busy { .. } => ErrorKind::Conflict,
        CoreDumpError::TooLarge { .. } => ErrorKind::Invalid,
        CoreDumpError::Gone { .. } => ErrorKind::Unavailable,
    };
    Failure::new(kind, error)
}
