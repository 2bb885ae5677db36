//! One request on one worker: route it, then answer it here or pass it on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::Full;
use hvm_runtime::{Hvm, RequestBody};
use hvm_types::ReplicaId;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::answer::IngressRefusal;
use super::body::{AnswerBody, ClientBody};
use super::forward::Forward;
use super::framing::HeadRefusal;
use super::header::{HOP, PARTITION, PROBE, asked_host, strip_hop_by_hop};
use super::routing::{Preference, Replica, RequestHead, Target};
use super::serving::Serving;

/// How long a request waits for a partition of this host that is starting or changing hands.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one waits that another host has passed on here, while this host knows nothing of it: the documents of two
/// hosts differ for a moment.
const FORWARDED_PATIENCE: Duration = Duration::from_secs(1);

/// Requests that may wait so, on each worker.
const MAX_WAITING: usize = 1024;

/// What one worker answers requests with. It never leaves its thread.
#[derive(Debug)]
pub(crate) struct Dispatch {
    hvm: Hvm,
    serving: RefCell<watch::Receiver<Arc<Serving>>>,
    current: RefCell<Rc<Seen>>,
    forward: Forward,
    /// Goes round the copies of stateless groups.
    turn: Cell<usize>,
    waiting: Cell<usize>,
}

/// The routes as this worker has seen them last, with a count of references of its own: one that all workers share
/// would be fought for at each request.
#[derive(Debug)]
struct Seen(Arc<Serving>);

impl Dispatch {
    pub(crate) fn new(hvm: Hvm, serving: watch::Receiver<Arc<Serving>>, forward: Forward) -> Self {
        let current = RefCell::new(Rc::new(Seen(Arc::clone(&serving.borrow()))));
        Self {
            hvm,
            serving: RefCell::new(serving),
            current,
            forward,
            turn: Cell::new(0),
            waiting: Cell::new(0),
        }
    }

    /// Answers a request; a refusal is an answer too.
    pub(crate) async fn answer(self: Rc<Self>, request: Request<ClientBody>) -> Response<AnswerBody> {
        match self.try_answer(request).await {
            Ok(response) => response,
            Err((refusal, replica)) => refusal.into_response(replica.as_ref()).map(AnswerBody::Own),
        }
    }

    async fn try_answer(
        &self,
        mut request: Request<ClientBody>,
    ) -> Result<Response<AnswerBody>, (IngressRefusal, Option<ReplicaId>)> {
        let refused = |refusal: IngressRefusal| (refusal, None);
        if request.method() == Method::CONNECT {
            return Err(refused(IngressRefusal::Connect));
        }
        if let Some(refusal) = HeadRefusal::of(request.method(), request.uri()) {
            return Err(refused(refusal.into()));
        }
        let hop = request.headers_mut().remove(HOP);
        if hop.as_ref() == Some(&PROBE) {
            return Ok(Response::new(AnswerBody::Own(Full::default())));
        }
        let was_forwarded = hop.is_some();
        let (parts, body) = request.into_parts();
        let host = asked_host(&parts).map_err(|error| refused(error.into()))?;
        let mut waits = None;
        loop {
            let seen = self.serving();
            let serving = seen.0.as_ref();
            let head = RequestHead {
                host: host.as_deref(),
                path: parts.uri.path(),
                query: parts.uri.query(),
                headers: &parts.headers,
            };
            let router = serving.router().ok_or(refused(IngressRefusal::NoDocument))?;
            let prefers = Preference {
                turn: self.next_turn(),
                is_ready: |replica: &ReplicaId| serving.is_ready(replica),
                is_near: |replica: &ReplicaId| self.hvm.is_here(replica),
            };
            let target = router.target(head, prefers).map_err(|error| refused(error.into()))?;
            // What can't be answered now can be in a moment, here or elsewhere: a partition starts or changes hands.
            let (patience, refusal) = match target {
                Target::Here(replica) if serving.is_ready(&replica.id) => {
                    let answer = self.answer_here(replica, Request::from_parts(parts, body)).await;
                    return answer.map_err(|refusal| (refusal, Some(replica.id.clone())));
                }
                Target::Elsewhere { group, replica, owner } if !was_forwarded => {
                    let name = replica.map_or_else(|| group.to_owned(), ReplicaId::to_string);
                    let sent = self.forward.send(owner, &name, Request::from_parts(parts, body)).await;
                    let response = sent.map_err(|refusal| (refusal, replica.cloned()))?;
                    return Ok(response.map(AnswerBody::Forwarded));
                }
                Target::Here(replica) => {
                    let refusal = IngressRefusal::Starting { replica: replica.id.clone() };
                    (PATIENCE, (refusal, Some(replica.id.clone())))
                }
                Target::Elsewhere { group, replica, .. } => {
                    let group = replica.map_or_else(|| group.to_owned(), ReplicaId::to_string);
                    (FORWARDED_PATIENCE, (IngressRefusal::ForwardedTwice { group }, replica.cloned()))
                }
            };
            if waits.is_none() {
                waits = Some(Waiting::enter(&self.waiting).map_err(refused)?);
            }
            let Some(waiting) = &waits else { return Err(refusal) };
            if !waiting.until_changed(&self.serving, patience).await {
                return Err(refusal);
            }
        }
    }

    async fn answer_here(
        &self,
        replica: &Replica,
        mut request: Request<ClientBody>,
    ) -> Result<Response<AnswerBody>, IngressRefusal> {
        strip_hop_by_hop(request.headers_mut());
        let mut response = self.hvm.request(&replica.id, request.map(RequestBody::from)).await?;
        strip_hop_by_hop(response.headers_mut());
        response.headers_mut().insert(PARTITION, replica.name.clone());
        Ok(response.map(AnswerBody::Guest))
    }

    fn serving(&self) -> Rc<Seen> {
        let mut serving = self.serving.borrow_mut();
        // An error means that the agent is stopping: the last state holds.
        if serving.has_changed().unwrap_or(false) {
            *self.current.borrow_mut() = Rc::new(Seen(Arc::clone(&serving.borrow_and_update())));
        }
        Rc::clone(&self.current.borrow())
    }

    fn next_turn(&self) -> usize {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }
}

/// A place among the waiting requests, given back also when the client goes away.
struct Waiting<'w> {
    count: &'w Cell<usize>,
    since: Instant,
}

impl<'w> Waiting<'w> {
    fn enter(count: &'w Cell<usize>) -> Result<Self, IngressRefusal> {
        if count.get() >= MAX_WAITING {
            return Err(IngressRefusal::TooManyWait);
        }
        count.set(count.get() + 1);
        Ok(Self { count, since: Instant::now() })
    }

    /// Waits until something changes that this worker has not seen; `false` where nothing does in time.
    async fn until_changed(&self, seen: &RefCell<watch::Receiver<Arc<Serving>>>, patience: Duration) -> bool {
        let mut serving = seen.borrow().clone();
        matches!(timeout_at(self.since + patience, serving.changed()).await, Ok(Ok(())))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.set(self.count.get() - 1);
    }
}
