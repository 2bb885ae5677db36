//! The commit loop: takes what waits, writes it as one segment, applies it, answers.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::core::{Core, Decided, Decision, Owned, Standing, StoredImage, Undone, Work};
use super::log::{Appended, LogWriter};
use super::material::Material;
use super::names::LogName;
use super::objects::ObjectError;
use super::segment::{Base, Entry, Fence};
use super::upkeep::Upkeep;

/// Most records in one segment.
const BATCH_RECORDS: usize = 4096;

/// What one segment is made of.
struct Turn<M: Material> {
    batch: M::Batch,
    decisions: Vec<Decision>,
}

impl<M: Material> Core<M> {
    pub(super) async fn commit_loop(&self, mut writer: LogWriter) {
        let mut failure: Option<String> = None;
        loop {
            let (commits, decisions) = self.next_work().await;
            if commits.is_empty() && decisions.is_empty() {
                return;
            }
            if let Some(reason) = &failure {
                self.table.borrow_mut().material.refuse(commits, reason);
                undo(decisions, &Undone::Unavailable(reason.clone()));
                continue;
            }
            let batch = self.table.borrow_mut().material.stage(commits);
            if let Err(reason) = self.write(&mut writer, Turn { batch, decisions }).await {
                tracing::error!(reason, "the shared state engine stopped");
                failure = Some(reason);
            }
        }
    }

    /// Waits for records or decisions. Returns none when the engine stops and nothing is left.
    async fn next_work(&self) -> (Vec<M::Commit>, Vec<Decision>) {
        loop {
            let commits = self.receive();
            let decisions: Vec<_> = self.decisions.borrow_mut().drain(..).collect();
            if self.stopping.get() || !commits.is_empty() || !decisions.is_empty() {
                return (commits, decisions);
            }
            self.wake.notified().await;
        }
    }

    /// Takes what waits, as much as one segment may hold.
    fn receive(&self) -> Vec<M::Commit> {
        let mut inbox = self.inbox.borrow_mut();
        let (mut commits, mut total) = (Vec::new(), 0);
        while total < self.settings.batch_bytes && commits.len() < BATCH_RECORDS {
            match (inbox.receive)() {
                Some(Work::Commit(commit, bytes)) => {
                    total += bytes;
                    commits.push(commit);
                }
                Some(Work::Take(asked)) => {
                    self.asked.borrow_mut().push_back(asked);
                    self.asked_notify.notify_one();
                }
                Some(Work::List(answer)) => {
                    self.lists.borrow_mut().push(answer);
                    self.asked_notify.notify_one();
                }
                Some(Work::Stop) => {
                    self.stopping.set(true);
                    break;
                }
                None => break,
            }
        }
        commits
    }

    /// Writes and applies one turn. An error ends the engine.
    async fn write(&self, writer: &mut LogWriter, mut turn: Turn<M>) -> Result<(), String> {
        loop {
            let entries = self.entries(&mut turn, writer.name());
            if entries.is_empty() {
                return self.table.borrow_mut().material.apply(turn.batch);
            }
            let draft = writer.draft(entries);
            #[cfg(feature = "planted-faults")]
            if self.faults.acknowledge_early {
                let at = self.table.borrow().next_segment;
                let result = self.applied(at, draft.len(), turn);
                drop(writer.append(&draft).await);
                return result;
            }
            match self.append(writer, &draft, &mut turn).await {
                Some(Ok(Appended::At(number))) => return self.applied(number, draft.len(), turn),
                Some(Ok(Appended::Fenced(number, fences))) => self.fenced(number, &fences, &mut turn),
                Some(Ok(Appended::Ended)) => {
                    self.ended(writer, turn);
                    return Ok(());
                }
                Some(Err(error)) => {
                    let reason = error.to_string();
                    self.table.borrow_mut().material.give_up(&mut turn.batch, &reason);
                    undo(turn.decisions, &Undone::Unavailable(reason.clone()));
                    return Err(reason);
                }
                None => return Ok(()),
            }
        }
    }

    /// Appends a draft, again and again while the store does not answer: nothing else may have its number.
    /// `None` when the engine stops meanwhile.
    async fn append(
        &self,
        writer: &mut LogWriter,
        draft: &Bytes,
        turn: &mut Turn<M>,
    ) -> Option<Result<Appended, ObjectError>> {
        loop {
            let error = match writer.append(draft).await {
                Err(error @ ObjectError::Unavailable { .. }) => error,
                result => return Some(result),
            };
            let reason = error.to_string();
            tracing::warn!(reason, "it is unknown whether a segment was written");
            self.table.borrow_mut().material.give_up(&mut turn.batch, &reason);
            for decision in &mut turn.decisions {
                answer(decision.done.take(), Err(Undone::Unavailable(reason.clone())));
            }
            let commits = self.receive();
            self.table.borrow_mut().material.refuse(commits, &reason);
            if self.stopping.get() {
                return None;
            }
        }
    }

    /// The entries of a turn. Decisions that can't come about any more are answered.
    fn entries(&self, turn: &mut Turn<M>, log: &LogName) -> Vec<Entry> {
        let table = self.table.borrow();
        let mut entries = Vec::new();
        for change in table.material.changes(&turn.batch) {
            let owned = table.owned.get(&change.id).expect("only what is owned is at hand");
            entries.push(Entry::Change { claim: owned.claim, change });
        }
        for decision in std::mem::take(&mut turn.decisions) {
            if let Some(newest) = table.ended.get(&decision.claim) {
                undo(vec![decision], &Undone::Fenced(*newest));
            } else if decision.log != *log {
                undo(vec![decision], &Undone::LogEnded);
            } else if decision.is_done(&table.owned) {
                answer(decision.done, Ok(()));
            } else if !decision.builds_on(&table.owned) {
                undo(vec![decision], &Undone::Unavailable("its claims changed meanwhile".to_owned()));
            } else {
                turn.decisions.push(decision);
            }
        }
        entries.extend(turn.decisions.iter().map(|decision| {
            let Decision { id, term, claim, .. } = decision;
            let (id, term, claim) = (id.clone(), *term, *claim);
            match &decision.what {
                Decided::Open(base, _) => Entry::Open { id, term, claim, base: base.clone() },
                Decided::Remove => Entry::Remove { id, term, claim },
            }
        }));
        entries
    }

    /// Applies what is in the log now.
    fn applied(&self, number: u64, bytes: usize, turn: Turn<M>) -> Result<(), String> {
        let mut table = self.table.borrow_mut();
        let table = &mut *table;
        table.next_segment = number + 1;
        table.upkeep.segments.insert(number, bytes as u64);
        for change in table.material.changes(&turn.batch) {
            if let Some(owned) = table.owned.get_mut(&change.id) {
                owned.logged_bytes += change.bytes();
                table.upkeep.logged_bytes += change.bytes();
            }
        }
        table.material.apply(turn.batch)?;
        for Decision { id, term, claim, what, done, .. } in turn.decisions {
            let mut owned = Owned {
                term,
                claim,
                standing: Standing::Active,
                origin: claim,
                from: number,
                image: None,
                image_bytes: 0,
                logged_bytes: 0,
            };
            match what {
                Decided::Open(Base::Continue(_), None) => {
                    table.material.raise(&id, term.epoch)?;
                    let before = table.owned.remove(&id).expect("what continues is owned");
                    owned = Owned { term, claim, standing: Standing::Active, ..before };
                }
                Decided::Open(base, image) => {
                    table.material.install(&id, term.epoch, image.as_ref())?;
                    match base {
                        Base::Stored(place) => {
                            owned.image_bytes = place.length;
                            owned.image = Some(StoredImage { place, claim, term, through: number });
                            owned.from = number + 1;
                        }
                        Base::Inline(image) => owned.image_bytes = image.len() as u64,
                        Base::Empty | Base::Continue(_) => {}
                    }
                    table.upkeep.logged_bytes += owned.image_bytes;
                }
                Decided::Remove => {
                    table.material.remove(&id)?;
                    owned.standing = Standing::Removed;
                }
            }
            table.owned.insert(id, owned);
            answer(done, Ok(()));
        }
        self.upkeep_notify.notify_one();
        Ok(())
    }

    /// Others have taken these claims at this number of the log.
    fn fenced(&self, number: u64, fences: &[Fence], turn: &mut Turn<M>) {
        let mut table = self.table.borrow_mut();
        table.next_segment = number + 1;
        table.upkeep.segments.insert(number, 0);
        #[cfg(feature = "planted-faults")]
        if self.faults.ignore_fences {
            return;
        }
        for Fence { id, claim, newest } in fences {
            table.ended.insert(*claim, *newest);
            let Some(owned) = table.owned.get_mut(id).filter(|owned| owned.claim == *claim) else { continue };
            if owned.standing == Standing::Active {
                owned.standing = Standing::Fenced(*newest);
                table.material.fence(id, *newest);
                table.material.withdraw(&mut turn.batch, id);
            }
        }
    }

    /// The log has ended: another engine of this host began, or its last partition was taken. What this
    /// engine has is fenced, and it goes on with a new log.
    fn ended(&self, writer: &mut LogWriter, mut turn: Turn<M>) {
        let mut table = self.table.borrow_mut();
        let owned = std::mem::take(&mut table.owned);
        for (id, owned) in owned {
            if owned.standing == Standing::Active {
                table.material.fence(&id, owned.term.epoch);
                table.material.withdraw(&mut turn.batch, &id);
            }
            if let Err(error) = table.material.remove(&id) {
                tracing::warn!(error, %id, "the state of a lost partition was not removed");
            }
        }
        table.ended.clear();
        table.log = LogName::new(&self.host, self.objects.surroundings().nonce());
        table.next_segment = 0;
        table.upkeep = Upkeep::default();
        *writer = LogWriter::new(self.objects.clone(), table.log.clone());
        drop(table);
        undo(turn.decisions, &Undone::LogEnded);
    }
}

fn undo(decisions: Vec<Decision>, why: &Undone) {
    for decision in decisions {
        answer(decision.done, Err(why.clone()));
    }
}

/// Whoever asked may be gone; what was done counts all the same.
fn answer(done: Option<oneshot::Sender<Result<(), Undone>>>, result: Result<(), Undone>) {
    drop(done.map(|done| done.send(result)));
}
