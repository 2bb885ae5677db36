//! Migrating a partition's state: before the first command of a version whose layout is newer, the version is asked to
//! bring the state into it. That is a command like any other: what it writes is committed in one record, with the new
//! layout in the same record, or not at all.

use std::rc::Rc;
use std::time::Instant as StdInstant;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use hvm_types::{ReplicaState, RequestOutcome, Sequence};
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, Question};
use super::command::Outcome;
use super::version::{Pool, Version};
use super::{Partition, open};
use crate::progress::Step;
use crate::state::{CommitError, CommitRecord, PartitionState, SchemaMark};
use crate::{LogLevel, MigrationError, OpenError, PartitionSpec, RequestError};

/// Where migrations are asked for; see [`super::reserved`].
const PATH: &str = "/.well-known/hvm/migrate";

/// Most characters of a guest's own words in an error.
const WORDS: usize = 200;

/// A migration whose guest has ended well, and that is not committed.
pub(super) struct Migrated {
    outcome: Outcome,
    from: u32,
    until: Instant,
}

/// The layout from which a version has to bring this state into its own; `None` where it may run as it is.
pub(super) fn from(spec: &PartitionSpec, state: &dyn PartitionState) -> Result<Option<u32>, OpenError> {
    // Without keys nobody can tell in which layout they are.
    if spec.grants.keyvalue.is_empty() {
        return Ok(None);
    }
    let id = || spec.id.clone();
    let read_failed = |error| open::read_failed(&spec.id, &error);
    let stored = match state.schema().map_err(read_failed)? {
        Some(stored) => stored,
        None if state.sequence().map_err(read_failed)? == Sequence(0) => return Ok(None),
        // Nobody said another.
        None => 1,
    };
    let must = spec.schema.must_migrate(stored);
    let must = must.map_err(|source| OpenError::Migration { id: id(), source: source.into() })?;
    Ok(must.then_some(stored))
}

/// What the first record of a partition says of its layout. Without a word it is 1.
pub(super) fn first_mark(spec: &PartitionSpec, state: &dyn PartitionState) -> Option<SchemaMark> {
    let version = spec.schema.version;
    (version > 1 && state.sequence() == Ok(Sequence(0))).then_some(SchemaMark::Is(version))
}

impl Partition {
    /// Brings the state of a version that is ready into its layout, where it is in an older one. Neither commands nor
    /// queries run meanwhile.
    pub(super) async fn migrate(self: &Rc<Self>, version: &Rc<Version>) -> Result<(), OpenError> {
        let Some(state) = &version.state else { return Ok(()) };
        let Some(from) = from(&version.spec, &**state)? else { return Ok(()) };
        let migrated = self.run_migration(version, from).await?;
        self.commit_migration(version, migrated).await
    }

    /// Lets the version migrate, without a commit. No command runs meanwhile; queries of the version before may.
    pub(super) async fn run_migration(
        self: &Rc<Self>,
        version: &Rc<Version>,
        from: u32,
    ) -> Result<Migrated, OpenError> {
        let to = version.spec.schema.version;
        let limit = version.spec.resources.migration_deadline.0;
        let began = StdInstant::now();
        let until = Instant::from_std(began) + limit;
        let question = question(from, to);
        let doing = self.observed.begin(question.topic(), None, Step::Guest, began);
        doing.in_guest.begins(began);
        self.log.host(LogLevel::Info, &format!("migrates its state from layout {from} to {to}"));
        let ended = {
            let mut running = Box::pin(self.run_in_guest(&doing, version, question, until));
            let running = self.cpu.throttled(Some(&doing), running.as_mut());
            tokio::select! {
                ended = timeout_at(until, running) => ended,
                () = self.given_up() => Ok(Err(RequestError::Stopped)),
            }
        };
        self.observed.meter.add_wall(doing.in_guest.time(StdInstant::now()));
        let failed = |source| self.migration_failed(version, source);
        let outcome = match ended {
            Err(_) | Ok(Err(RequestError::Deadline { .. })) => {
                doing.ended(RequestOutcome::TimedOut, None);
                return Err(failed(MigrationError::Deadline { from, to, limit }));
            }
            Ok(Err(source)) => {
                doing.ended(source.outcome(), None);
                return Err(failed(MigrationError::Stopped { from, to, source: Box::new(source) }));
            }
            Ok(Ok(outcome)) => outcome,
        };
        doing.ended(outcome.answer.outcome(), outcome.answer.status());
        if outcome.answer.is_rejection() {
            let answered = words(&outcome.answer);
            return Err(failed(MigrationError::Refused { from, to, answered }));
        }
        Ok(Migrated { outcome, from, until })
    }

    /// Makes a migration durable. Neither commands nor queries run meanwhile: nothing of the version before may see
    /// what this one wrote.
    pub(super) async fn commit_migration(
        &self,
        version: &Rc<Version>,
        migrated: Migrated,
    ) -> Result<(), OpenError> {
        let Some(state) = &version.state else { return Ok(()) };
        let Migrated { outcome: Outcome { instance, effects, .. }, from, .. } = migrated;
        let (to, written) = (version.spec.schema.version, effects.writes.bytes() as u64);
        let meter = self.observed.read_meter();
        let record = CommitRecord {
            writes: effects.writes,
            schema: Some(SchemaMark::Migrated(to)),
            ..self.record(version, &meter)
        };
        match state.commit(record).await {
            Ok(sequence) => {
                self.committed_meter.replace(meter);
                self.observed.meter.count_state(0, written);
                self.observed.set_committed(sequence, state.stored_bytes().ok());
                self.changed.notify_waiters();
                version.check_in(&self.host, Pool::Command, instance, StdInstant::now());
            }
            // A commit of which nobody heard was one after all.
            Err(CommitError::AlreadyApplied) => {}
            Err(error) => {
                let unknown = matches!(error, CommitError::Unavailable { .. });
                let source = Box::new(self.commit_error(error));
                if unknown {
                    // The version before must not go on with state that may be migrated: who opens it again knows.
                    self.observed.set_state(ReplicaState::Failed { reason: source.to_string() });
                }
                return Err(self.migration_failed(version, MigrationError::Stopped { from, to, source }));
            }
        }
        self.log.host(LogLevel::Info, &format!("migrated its state from layout {from} to {to}"));
        Ok(())
    }

    /// Resolves when the partition is being closed, or can't go on.
    async fn given_up(&self) {
        loop {
            let changed = self.changed.notified();
            match self.observed.state() {
                ReplicaState::Ready | ReplicaState::Hibernated | ReplicaState::Recovering => {}
                _ => return,
            }
            changed.await;
        }
    }

    fn migration_failed(&self, version: &Version, source: MigrationError) -> OpenError {
        let error = OpenError::Migration { id: version.spec.id.clone(), source };
        self.log.host(LogLevel::Error, &error.to_string());
        error
    }
}

impl Migrated {
    /// Until when it must be committed.
    pub(super) const fn until(&self) -> Instant {
        self.until
    }

    /// That it was not committed by then.
    pub(super) fn too_late(&self, version: &Version) -> OpenError {
        let (from, to) = (self.from, version.spec.schema.version);
        let limit = version.spec.resources.migration_deadline.0;
        let source = MigrationError::Deadline { from, to, limit };
        OpenError::Migration { id: version.spec.id.clone(), source }
    }
}

/// What the guest is asked. A component of the typed world gets it as the command of this name, without the first `/`.
fn question(from: u32, to: u32) -> Question {
    let request = Request::builder()
        .method(Method::POST)
        .uri(PATH)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(())
        .expect("all parts of it are valid");
    Question::Http(request.into_parts().0, Bytes::from(format!("from={from}&to={to}")))
}

/// What the guest says of why not, shortened.
fn words(answer: &Answer) -> String {
    let (status, said): (String, &[u8]) = match answer {
        Answer::Http(head, body) => (format!("status {}", head.status.as_u16()), body),
        Answer::Call(Ok(_)) => (String::new(), &[]),
        Answer::Call(Err(failure)) => (failure.kind.to_string(), failure.message.as_bytes()),
    };
    let said = String::from_utf8_lossy(&said[..said.len().min(4 * WORDS)]);
    let said: String = said.trim().chars().filter(|c| !c.is_control()).take(WORDS).collect();
    if said.is_empty() { status } else { format!("{status}: {said}") }
}
