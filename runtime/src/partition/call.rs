//! Typed calls. A command takes its turn in its lane like any other. A query that need not wait for its turn runs at
//! once, within the asker's own poll: no task, no channel and no timer is made for one that is answered in a
//! millisecond. What takes longer goes on in a task of its own.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use hvm_types::{ReplicaId, RequestOutcome};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::accept::{Admitted, Start, find};
use super::job::{Accepted, Asked, Job, Reply};
use super::version::{Pool, Version};
use super::{Partition, reserved};
use crate::capability::Access;
use crate::guest::{Answered, InstanceHandle, discard};
use crate::observed::{DoingGuard, Topic};
use crate::progress::{Progress, Step};
use crate::worker::Local;
use crate::{Call, CallError, CallKind, MAX_NAME_BYTES, RequestError};

type Answer = Result<Bytes, CallError>;

/// A call that has begun on this worker.
pub(crate) enum Started {
    /// It is answered; that took this long.
    Answered(Answer, Duration),
    /// The answer comes.
    Waits(oneshot::Receiver<Answer>),
}

/// What a guest made of a call, and its instance where it may serve on.
type Ended = Result<(Answered, InstanceHandle), RequestError>;

/// Begins a call, or answers at once why not.
pub(crate) fn call(local: &Rc<Local>, id: &ReplicaId, call: Call) -> Started {
    match find(local, id) {
        Ok(partition) => partition.start_call(call),
        Err(error) => Started::Answered(Err(error.into()), Duration::ZERO),
    }
}

/// Begins a call that comes from another thread.
pub(crate) fn call_from_afar(local: &Rc<Local>, id: &ReplicaId, asked: Call, reply: oneshot::Sender<Answer>) {
    match call(local, id, asked) {
        Started::Answered(answer, _) => drop(reply.send(answer)),
        Started::Waits(mut answer) => crate::worker::spawn_here(async move {
            let mut reply = reply;
            tokio::select! {
                biased;
                answer = &mut answer => drop(reply.send(answer.unwrap_or_else(|_| Err(broke_off().into())))),
                // Dropping `answer` tells the guest's task.
                () = reply.closed() => {}
            }
        }),
    }
}

pub(crate) fn broke_off() -> RequestError {
    RequestError::Internal { reason: "it broke off in this call; see its log".to_owned() }
}

impl Partition {
    fn start_call(self: &Rc<Self>, mut call: Call) -> Started {
        let began = Instant::now();
        let version = self.version();
        if let Err(error) = self.admit_call(&version, &call) {
            return Started::Answered(Err(self.call_error(None, error)), Duration::ZERO);
        }
        let is_command = version.spec.stateful && call.kind == CallKind::Command;
        if !is_command && self.queries.is_idle() {
            return self.call_now(version, call, began);
        }
        let key = if is_command { call.key.take() } else { None };
        let (sender, receiver) = oneshot::channel();
        self.take_in(
            Admitted { asked: Asked::Call(call), is_command, key, at_least: None, trace: None },
            Reply::Call(sender),
            Start::AsTask,
        );
        Started::Waits(receiver)
    }

    fn admit_call(&self, version: &Rc<Version>, call: &Call) -> Result<(), RequestError> {
        self.check_open(version)?;
        if !version.spec.module.is_typed() {
            return Err(RequestError::NoTypedHandler);
        }
        if call.name.len() > MAX_NAME_BYTES {
            let reason = format!("its name is longer than {MAX_NAME_BYTES} bytes");
            return Err(RequestError::Invalid { reason });
        }
        reserved::check(&call.name)?;
        let limit = version.spec.resources.request_body;
        if call.payload.len() as u64 > limit.0 {
            return Err(RequestError::BodyTooLarge { limit });
        }
        Ok(())
    }

    /// Runs a query as far as it goes without waiting; a task does the rest.
    fn call_now(self: &Rc<Self>, version: Rc<Version>, call: Call, began: Instant) -> Started {
        let topic = Topic::Call(call.kind, call.name.clone());
        let doing = self.observed.begin(topic, None, Step::Guest, began);
        let turn = Rc::clone(self).call_in_turn(Arc::clone(&doing), Rc::clone(&version), call, began);
        let mut running = Box::pin(turn);
        crate::worker::poll_begins(began);
        let first = {
            let mut context = Context::from_waker(Waker::noop());
            let poll = AssertUnwindSafe(|| running.as_mut().poll(&mut context));
            catch_unwind(poll).unwrap_or_else(|_| Poll::Ready(Err(broke_off())))
        };
        let now = Instant::now();
        let took = now - began;
        self.slices.charge(&self.cpu, took, now);
        match first {
            Poll::Ready(ended) => {
                drop(running);
                self.observed.latency.add(took);
                let answer = self.end_call(&doing, &version, ended, began, now);
                Started::Answered(answer, took)
            }
            Poll::Pending => {
                let (sender, receiver) = oneshot::channel();
                let rest = Rc::clone(self).go_on(doing, version, running, began, sender);
                crate::worker::spawn_here(self.slices.metered(&self.cpu, rest));
                Started::Waits(receiver)
            }
        }
    }

    /// Runs a query that holds its own turn.
    async fn call_in_turn(
        self: Rc<Self>,
        progress: Arc<Progress>,
        version: Rc<Version>,
        call: Call,
        began: Instant,
    ) -> Ended {
        let _accepted = Accepted::new(&self);
        let _turn = self.queries.enter();
        let deadline = began + version.spec.resources.deadline.0;
        let running = pin!(self.call_in_guest(&progress, &version, &call, began, deadline.into()));
        self.cpu.throttled(Some(&progress), running).await
    }

    /// Goes on with a query that could not be answered at once, then with what came for its lane meanwhile.
    async fn go_on(
        self: Rc<Self>,
        doing: DoingGuard,
        version: Rc<Version>,
        running: Pin<Box<impl Future<Output = Ended>>>,
        began: Instant,
        reply: oneshot::Sender<Answer>,
    ) {
        let reply = RefCell::new(Some(Reply::Call(reply)));
        let deadline = began + version.spec.resources.deadline.0;
        let running = AssertUnwindSafe(running).catch_unwind();
        let running = async { running.await.unwrap_or_else(|_| Err(broke_off())) };
        let ended = self.until(running, deadline.into(), &version, &reply).await;
        self.observed.latency.add(began.elapsed());
        self.answer_call(&doing, &version, ended, began, &reply);
        drop(doing);
        self.work_off(|partition| &partition.queries).await;
    }

    /// Runs a query that waited for its turn.
    pub(super) async fn run_call(self: &Rc<Self>, job: Job) {
        let Job { asked, arrived, deadline, reply, waiting, doing, _accepted, .. } = job;
        drop(waiting);
        let Asked::Call(call) = asked else { return };
        let version = self.version();
        let reply = RefCell::new(Some(reply));
        let began = Instant::now();
        let running = Box::pin(async {
            if tokio::time::Instant::from(began) >= deadline {
                return Err(RequestError::Deadline { limit: version.spec.resources.deadline.0 });
            }
            doing.set(Step::Guest);
            let running = pin!(self.call_in_guest(&doing, &version, &call, began, deadline));
            self.cpu.throttled(Some(&doing), running).await
        });
        let ended = self.until(running, deadline, &version, &reply).await;
        self.observed.latency.add(arrived.elapsed());
        self.answer_call(&doing, &version, ended, began, &reply);
    }

    /// Drops a query at its deadline, or when nobody waits for its answer any more.
    async fn until(
        &self,
        running: impl Future<Output = Ended>,
        deadline: tokio::time::Instant,
        version: &Rc<Version>,
        reply: &RefCell<Option<Reply>>,
    ) -> Ended {
        let limit = version.spec.resources.deadline.0;
        let gone = std::future::poll_fn(|context| match reply.borrow_mut().as_mut() {
            Some(reply) => reply.poll_closed(context),
            None => Poll::Pending,
        });
        tokio::select! {
            biased;
            ended = timeout_at(deadline, running) => ended.unwrap_or(Err(RequestError::Deadline { limit })),
            () = gone => Err(RequestError::BodyBroken { reason: "the asker is gone".to_owned() }),
        }
    }

    async fn call_in_guest(
        self: &Rc<Self>,
        progress: &Arc<Progress>,
        version: &Rc<Version>,
        call: &Call,
        began: Instant,
        deadline: tokio::time::Instant,
    ) -> Ended {
        self.observed.meter.count_received(call.payload.len());
        let mut instance =
            version.check_out(&self.host, &self.observed, progress, Pool::Query, deadline).await?;
        let access = if version.spec.stateful { Access::Query } else { Access::None };
        instance.begin(access, progress, began, deadline);
        let answered = instance.call(call.kind, &call.name, &call.payload).await;
        let effects = instance.end();
        match (answered, &effects.broken) {
            (Err(error), _) => {
                discard(instance);
                Err(error)
            }
            (_, Some(error)) => Err(self.read_error(error)),
            (Ok(answered), None) => Ok((answered, instance)),
        }
    }

    fn answer_call(
        &self,
        progress: &Progress,
        version: &Rc<Version>,
        ended: Ended,
        began: Instant,
        reply: &RefCell<Option<Reply>>,
    ) {
        let answer = self.end_call(progress, version, ended, began, Instant::now());
        match (reply.take(), answer) {
            (None, _) => {}
            (Some(reply), Ok(bytes)) => reply.answered(Ok(bytes)),
            (Some(reply), Err(CallError::Failed(failure))) => reply.answered(Err(failure)),
            (Some(reply), Err(CallError::Request(error))) => reply.error(error),
        }
    }

    /// Counts how a query ended, and keeps its instance where it may serve on.
    fn end_call(
        &self,
        progress: &Progress,
        version: &Rc<Version>,
        ended: Ended,
        began: Instant,
        now: Instant,
    ) -> Answer {
        self.observed.meter.add_wall(now - began);
        let (answered, instance) = ended.map_err(|error| self.call_error(Some(progress), error))?;
        version.check_in(&self.host, Pool::Query, instance, now);
        match answered {
            Ok(bytes) => {
                self.observed.meter.count(RequestOutcome::Succeeded);
                progress.ended(RequestOutcome::Succeeded, None);
                self.observed.meter.count_sent(bytes.len());
                Ok(bytes)
            }
            Err(failure) => {
                self.observed.meter.count(RequestOutcome::Rejected);
                progress.ended(RequestOutcome::Rejected, None);
                Err(CallError::Failed(failure))
            }
        }
    }

    fn call_error(&self, progress: Option<&Progress>, error: RequestError) -> CallError {
        self.count_error(progress, &error);
        error.into()
    }
}
