//! An answer between the guest that produces it and whoever reads it, on whatever thread.
//!
//! `wasi:http` ends a body in the same way where its guest finished it and where its guest was stopped. Here the
//! reader sees the end only when the guest's task has said how it ended.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http_body::{Body as _, Frame};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::RequestError;
use crate::meter::MeterCell;

/// The side that reads. Dropping it tells the guest that nobody does.
#[derive(Debug)]
pub(crate) struct AnswerReader {
    shared: Arc<Mutex<Shared>>,
    meter: Arc<MeterCell>,
}

/// The side of the guest's task. Dropped without [`AnswerEnd::finish`], the answer is broken off.
#[derive(Debug)]
pub(crate) struct AnswerEnd(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    /// The guest's channel; `None` when nothing more comes out of it.
    frames: Option<HyperOutgoingBody>,
    /// What was taken out of the channel when the guest had ended: its first frame, which is often the only one, and
    /// the others.
    first_left: Option<Frame<Bytes>>,
    left: VecDeque<Frame<Bytes>>,
    /// How the guest ended, when it has.
    end: Option<Result<(), RequestError>>,
    is_read: bool,
    reader: Option<Waker>,
    task: Option<Waker>,
}

/// Connects a guest's body with its reader.
pub(crate) fn answer(frames: HyperOutgoingBody, meter: Arc<MeterCell>) -> (AnswerReader, AnswerEnd) {
    let shared = Arc::new(Mutex::new(Shared {
        frames: Some(frames),
        first_left: None,
        left: VecDeque::new(),
        end: None,
        is_read: true,
        reader: None,
        task: None,
    }));
    (AnswerReader { shared: Arc::clone(&shared), meter }, AnswerEnd(shared))
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AnswerReader {
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
        let mut polled = lock(&self.shared).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled {
            if let Some(trailers) = frame.trailers_mut() {
                crate::partition::strip_sequence(trailers);
            }
            self.meter.count_sent(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }
}

impl Drop for AnswerReader {
    fn drop(&mut self) {
        let task = {
            let mut shared = lock(&self.shared);
            shared.is_read = false;
            shared.frames = None;
            shared.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl AnswerEnd {
    /// Says how the guest ended. Returns how the answer ended: a guest that returned well may still have left it
    /// unfinished. Takes note of that before the reader can see it.
    pub(crate) fn finish(
        &self,
        guest: Result<(), RequestError>,
        note: impl FnOnce(&Result<(), RequestError>),
    ) -> Result<(), RequestError> {
        let mut shared = lock(&self.0);
        let end = guest.and_then(|()| shared.take_what_is_left());
        if end.is_err() {
            shared.frames = None;
        }
        note(&end);
        shared.end = Some(end.clone());
        let reader = shared.reader.take();
        drop(shared);
        if let Some(reader) = reader {
            reader.wake();
        }
        end
    }

    /// What is left to be read, if anything is.
    pub(crate) fn unread(&self) -> Option<Unread> {
        (!lock(&self.0).left.is_empty()).then(|| Unread(Arc::downgrade(&self.0)))
    }

    /// Ready when nobody reads any more.
    pub(crate) fn poll_unread(&self, context: &Context<'_>) -> Poll<()> {
        let mut shared = lock(&self.0);
        if !shared.is_read {
            return Poll::Ready(());
        }
        shared.task = Some(context.waker().clone());
        Poll::Pending
    }
}

/// An answer whose guest has ended and whose rest nobody has read yet.
#[derive(Debug)]
pub(crate) struct Unread(Weak<Mutex<Shared>>);

impl Unread {
    /// Drops the rest where nothing of it is read for `patience`: it is held for somebody who does not want it.
    pub(crate) async fn expire(self, patience: Duration) {
        let mut before = usize::MAX;
        loop {
            let Some(left) = self.0.upgrade().map(|shared| lock(&shared).left.len()) else { return };
            if left == 0 {
                return;
            }
            if left == before {
                break;
            }
            before = left;
            tokio::time::sleep(patience).await;
        }
        let Some(shared) = self.0.upgrade() else { return };
        let mut shared = lock(&shared);
        shared.left.clear();
        shared.end = Some(Err(RequestError::ResponseUnread { patience }));
        if let Some(reader) = shared.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for AnswerEnd {
    fn drop(&mut self) {
        if lock(&self.0).end.is_none() {
            drop(self.finish(Err(RequestError::ResponseIncomplete), |_| {}));
        }
    }
}

impl Shared {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
        if let Some(Err(error)) = &self.end {
            return Poll::Ready(Some(Err(error.clone())));
        }
        if let Some(frame) = self.first_left.take().or_else(|| self.left.pop_front()) {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(frames) = &mut self.frames {
            match Pin::new(frames).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Some(Ok(frame))),
                Poll::Ready(Some(Err(_))) => {
                    self.frames = None;
                    self.end = Some(Err(RequestError::ResponseIncomplete));
                    return Poll::Ready(Some(Err(RequestError::ResponseIncomplete)));
                }
                Poll::Ready(None) => self.frames = None,
                Poll::Pending => {}
            }
        }
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        self.reader = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes what the guest left in its channel, at most what that holds, and says whether the answer is whole.
    fn take_what_is_left(&mut self) -> Result<(), RequestError> {
        if let Some(Err(error)) = &self.end {
            return Err(error.clone());
        }
        let Some(frames) = &mut self.frames else { return Ok(()) };
        let (first, left) = (&mut self.first_left, &mut self.left);
        let taking = std::future::poll_fn(|context| {
            loop {
                match std::task::ready!(Pin::new(&mut *frames).poll_frame(context)) {
                    Some(Ok(frame)) if first.is_none() => *first = Some(frame),
                    Some(Ok(frame)) => left.push_back(frame),
                    Some(Err(_)) => return Poll::Ready(Err(RequestError::ResponseIncomplete)),
                    None => return Poll::Ready(Ok(())),
                }
            }
        });
        // The guest is gone: what is not there now never comes. With a budget, the channel could claim to be
        // empty when it is not.
        let taken = tokio::task::unconstrained(taking).now_or_never();
        self.frames = None;
        taken.unwrap_or(Err(RequestError::ResponseIncomplete))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn guest(frames: Vec<&'static [u8]>, then_hangs: bool) -> HyperOutgoingBody {
        use futures::StreamExt as _;
        let frames = futures::stream::iter(frames.into_iter().map(|data| Ok(Frame::data(data.into()))));
        if then_hangs {
            StreamBody::new(frames.chain(futures::stream::pending())).boxed_unsync()
        } else {
            StreamBody::new(frames).boxed_unsync()
        }
    }

    fn read(reader: &mut AnswerReader) -> Option<Option<Result<Bytes, RequestError>>> {
        let frame = std::future::poll_fn(|context| reader.poll_frame(context)).now_or_never()?;
        Some(frame.map(|frame| frame.map(|frame| frame.into_data().expect("data"))))
    }

    #[test]
    fn the_end_shows_only_when_the_guest_has_ended() {
        let (mut reader, end) = answer(guest(vec![b"a"], false), Arc::default());
        assert_eq!(read(&mut reader), Some(Some(Ok("a".into()))));
        assert_eq!(read(&mut reader), None, "the guest may still be stopped");
        assert_eq!(end.finish(Ok(()), |_| {}), Ok(()));
        assert_eq!(read(&mut reader), Some(None));
    }

    #[test]
    fn what_the_guest_left_is_read_after_its_end() {
        let (mut reader, end) = answer(guest(vec![b"a", b"b"], false), Arc::default());
        assert_eq!(end.finish(Ok(()), |_| {}), Ok(()));
        drop(end);
        assert_eq!(read(&mut reader), Some(Some(Ok("a".into()))));
        assert_eq!(read(&mut reader), Some(Some(Ok("b".into()))));
        assert_eq!(read(&mut reader), Some(None));
    }

    #[test]
    fn an_answer_without_its_end_is_broken_off() {
        let (mut reader, end) = answer(guest(vec![b"a"], true), Arc::default());
        assert_eq!(end.finish(Ok(()), |_| {}), Err(RequestError::ResponseIncomplete));
        assert_eq!(read(&mut reader), Some(Some(Err(RequestError::ResponseIncomplete))));

        let (mut reader, end) = answer(guest(vec![b"a"], false), Arc::default());
        drop(end);
        assert_eq!(read(&mut reader), Some(Some(Err(RequestError::ResponseIncomplete))));

        let (mut reader, end) = answer(guest(vec![b"a"], false), Arc::default());
        let failed = RequestError::Internal { reason: "test".to_owned() };
        assert_eq!(end.finish(Err(failed.clone()), |_| {}), Err(failed.clone()));
        assert_eq!(read(&mut reader), Some(Some(Err(failed))));
    }

    #[test]
    fn the_guests_task_learns_that_nobody_reads() {
        let (reader, end) = answer(guest(vec![], true), Arc::default());
        let unread = || std::future::poll_fn(|context| end.poll_unread(context)).now_or_never();
        assert_eq!(unread(), None);
        drop(reader);
        assert_eq!(unread(), Some(()));
    }

    #[tokio::test]
    async fn a_rest_that_nobody_reads_is_not_kept_and_one_that_is_read_slowly_is() {
        const PATIENCE: Duration = Duration::from_millis(200);
        let (mut slow, end) = answer(guest(vec![b"a", b"b", b"c"], false), Arc::default());
        assert_eq!(end.finish(Ok(()), |_| {}), Ok(()));
        let unread = end.unread().expect("three frames");
        let reading = async {
            for data in ["a", "b", "c"] {
                tokio::time::sleep(PATIENCE / 4).await;
                assert_eq!(read(&mut slow), Some(Some(Ok(data.into()))));
            }
        };
        tokio::join!(unread.expire(PATIENCE), reading);
        assert_eq!(read(&mut slow), Some(None));

        let (mut never, end) = answer(guest(vec![b"a", b"b"], false), Arc::default());
        assert_eq!(end.finish(Ok(()), |_| {}), Ok(()));
        end.unread().expect("two frames").expire(PATIENCE).await;
        let expired = RequestError::ResponseUnread { patience: PATIENCE };
        assert_eq!(read(&mut never), Some(Some(Err(expired))));
    }
}
