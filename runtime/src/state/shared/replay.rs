//! Reading a log: the newest manifest, then the segments that it does not cover, in order. The result is the
//! state of each claim at the log's end or at its fence. Nothing is guessed: a gap or an object that is not
//! what it must be is damage.
//!
//! The writer may collect while it is read. A reading counts when the manifest that it began with is still the
//! newest at its end; else it begins again. So what is missing then is missing for good.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use hvm_types::ReplicaId;
use object_store::path::Path;

use super::image::{Change, Image};
use super::manifest::Manifest;
use super::names::{LogName, Nonce, Term, number_in};
use super::objects::{ObjectError, Objects};
use super::segment::{Base, Body, Entry, ImageRef, Segment};
use super::wire::{Broken, Checksum};

/// How often a reading begins again because the writer collected meanwhile.
const READINGS: usize = 16;
/// Segments that are fetched at once.
const FETCHED_AT_ONCE: usize = 8;

/// What is wrong with a log that has only records of a claim.
pub(super) const LACKS_STATE: &str = "lack the state that later records build on";

/// What a log says of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// The claim's taking over was completed, and this is its state.
    State(Image),
    /// The partition was removed.
    Removed,
}

/// What a log says.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The wanted claims whose taking over was completed.
    pub(super) found: HashMap<Nonce, Found>,
    /// The wanted claims with records and without the state that these build on: damage, unless somebody else has taken
    /// the partition, and this log let go of it. It concerns no other partition.
    pub(super) lacking: HashSet<Nonce>,
    /// Every claim in the log.
    pub(super) known: Vec<(ReplicaId, Term)>,
    /// The first segment that the log's manifest needs: those before it may have been deleted.
    pub(super) first: u64,
}

/// Reads a log up to a segment, or to its end.
pub(super) async fn read_log(
    objects: &Objects,
    log: &LogName,
    upto: Option<u64>,
    wanted: &BTreeSet<Nonce>,
) -> Result<Reading, ObjectError> {
    let mut damage = 0;
    for _ in 0..READINGS {
        let before = newest_manifest_path(objects, log).await?;
        let reading = try_read(objects, log, before.as_ref(), upto, wanted).await;
        // A segment is deleted only after a manifest without it was stored; then a late put of another may even
        // stand in its place. So what was read counts only if the manifest is still the newest.
        if newest_manifest_path(objects, log).await? != before {
            continue;
        }
        let missing = |Gone(path)| ObjectError::Corrupt { path, what: "is missing".to_owned() };
        match reading.and_then(|reading| reading.map_err(missing)) {
            // Where the log was retired meanwhile, the next reading finds the mark.
            Err(ObjectError::Corrupt { .. }) if damage == 0 => damage += 1,
            Ok(reading) if damage == 0 && !reading.lacking.is_empty() => damage += 1,
            reading => return reading,
        }
    }
    let (path, reason) = (log.segments().to_string(), "its writer collects all the time".to_owned());
    Err(ObjectError::Unavailable { action: "read", path, reason })
}

/// An object that was there a moment ago, or should be.
struct Gone(String);

type Attempt<T> = Result<Result<T, Gone>, ObjectError>;

/// Takes the value out of an attempt, or ends the function with what is gone.
macro_rules! present {
    ($attempt:expr) => {
        match $attempt {
            Ok(value) => value,
            Err(gone) => return Ok(Err(gone)),
        }
    };
}

async fn try_read(
    objects: &Objects,
    log: &LogName,
    manifest: Option<&Path>,
    upto: Option<u64>,
    wanted: &BTreeSet<Nonce>,
) -> Attempt<Reading> {
    let manifest = match manifest {
        Some(path) => Some(present!(read_manifest(objects, log, path).await?)),
        None => None,
    };
    let listed: Vec<u64> = objects.list(&log.segments()).await?.iter().filter_map(number_in).collect();
    let Some(last) = upto.or_else(|| listed.last().copied()) else {
        return Ok(Ok(Reading::default()));
    };
    let first = manifest.as_ref().map_or(0, |manifest| manifest.first);
    if present!(is_retired(objects, log, first, &listed).await?) {
        return Ok(Ok(Reading::default()));
    }
    let mut replay = Replay::new(manifest);
    let mut link = None;
    let mut segments = futures::stream::iter((first..=last).map(|number| fetch(objects, log, number)))
        .buffered(FETCHED_AT_ONCE);
    while let Some(segment) = segments.try_next().await? {
        replay.add_linked(log, present!(segment), &mut link)?;
    }
    replay.finish(objects, log, wanted, first).await
}

/// Whether the log was retired: the mark is among the foreign segments at its end, which are never deleted. A
/// put that was delayed until its number was free again says nothing: it stands before what is needed.
async fn is_retired(objects: &Objects, log: &LogName, first: u64, listed: &[u64]) -> Attempt<bool> {
    let mut expected = listed.last().copied();
    for number in listed.iter().rev().filter(|number| **number >= first) {
        if expected != Some(*number) {
            break;
        }
        match present!(fetch(objects, log, *number).await?).0.body {
            Body::Own { .. } => return Ok(Ok(false)),
            Body::Retire => return Ok(Ok(true)),
            Body::Fence(_) | Body::Seal => expected = number.checked_sub(1),
        }
    }
    Ok(Ok(false))
}

/// The first segment that a log's newest manifest needs.
pub(super) async fn first_needed(objects: &Objects, log: &LogName) -> Result<u64, ObjectError> {
    let mut missing = String::new();
    for _ in 0..READINGS {
        let Some(path) = newest_manifest_path(objects, log).await? else { return Ok(0) };
        match read_manifest(objects, log, &path).await? {
            Ok(manifest) => return Ok(manifest.first),
            Err(Gone(path)) => missing = path,
        }
    }
    Err(ObjectError::Corrupt { path: missing, what: "is missing".to_owned() })
}

async fn newest_manifest_path(objects: &Objects, log: &LogName) -> Result<Option<Path>, ObjectError> {
    Ok(objects.list(&log.manifests()).await?.pop())
}

async fn read_manifest(objects: &Objects, log: &LogName, path: &Path) -> Attempt<Manifest> {
    let Some(object) = objects.get(path).await? else { return Ok(Err(Gone(path.to_string()))) };
    let manifest = Manifest::decode(&object).map_err(|broken| ObjectError::corrupt(path, broken))?;
    if manifest.log != *log || number_in(path) != Some(manifest.number) {
        return Err(ObjectError::corrupt(path, Broken("belongs to another place")));
    }
    Ok(Ok(manifest))
}

async fn fetch(objects: &Objects, log: &LogName, number: u64) -> Attempt<(Segment, Checksum)> {
    let path = log.segment(number);
    let Some(object) = objects.get(&path).await? else { return Ok(Err(Gone(path.to_string()))) };
    let segment = Segment::decode(&object).map_err(|broken| ObjectError::corrupt(&path, broken))?;
    if segment.log != *log || segment.number != number {
        return Err(ObjectError::corrupt(&path, Broken("belongs to another place")));
    }
    Ok(Ok((segment, Checksum::of_object(&object))))
}

/// What was read until now.
struct Replay {
    held: HashMap<Nonce, Held>,
    /// Claims that were taken away: what follows of them does not count.
    ended: HashSet<Nonce>,
    /// Claims whose state in the manifest covers the segments up to this one.
    through: HashMap<Nonce, u64>,
    /// Claims with entries but without the state that these build on.
    orphans: HashSet<Nonce>,
    sealed: bool,
}

/// One claim's state.
struct Held {
    id: ReplicaId,
    term: Term,
    state: Option<Start>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Start {
    Empty,
    Inline(Bytes),
    Stored(ImageRef),
}

impl Replay {
    fn new(manifest: Option<Manifest>) -> Self {
        let mut this = Self {
            held: HashMap::new(),
            ended: HashSet::new(),
            through: HashMap::new(),
            orphans: HashSet::new(),
            sealed: false,
        };
        for kept in manifest.into_iter().flat_map(|manifest| manifest.kept) {
            this.through.insert(kept.claim, kept.through);
            let state = kept.image.map(Start::Stored);
            this.held.insert(kept.claim, Held { id: kept.id, term: kept.term, state, changes: Vec::new() });
        }
        this
    }

    /// Adds the next segment. A writer's own one names the checksum of the one before.
    fn add_linked(
        &mut self,
        log: &LogName,
        (segment, checksum): (Segment, Checksum),
        previous: &mut Option<Checksum>,
    ) -> Result<(), ObjectError> {
        let path = log.segment(segment.number);
        if let (Body::Own { link, .. }, Some(previous)) = (&segment.body, &previous)
            && link != previous
        {
            return Err(ObjectError::corrupt(&path, Broken("does not follow the segment before it")));
        }
        *previous = Some(checksum);
        self.add(segment).map_err(|broken| ObjectError::corrupt(&path, broken))
    }

    fn add(&mut self, segment: Segment) -> Result<(), Broken> {
        match segment.body {
            Body::Own { entries, .. } if !self.sealed => {
                entries.into_iter().try_for_each(|entry| self.add_entry(segment.number, entry))
            }
            Body::Own { .. } => Ok(()),
            Body::Fence(fences) => {
                self.ended.extend(fences.into_iter().map(|fence| fence.claim));
                Ok(())
            }
            Body::Seal | Body::Retire => {
                self.sealed = true;
                Ok(())
            }
        }
    }

    fn add_entry(&mut self, number: u64, entry: Entry) -> Result<(), Broken> {
        let claim = match &entry {
            Entry::Open { claim, .. } | Entry::Change { claim, .. } | Entry::Remove { claim, .. } => *claim,
        };
        let covered = self.through.get(&claim).is_some_and(|through| number <= *through);
        if covered || self.ended.contains(&claim) {
            return Ok(());
        }
        match entry {
            Entry::Open { id, term, claim, base } => {
                let (state, changes) = match base {
                    Base::Empty => (Start::Empty, Vec::new()),
                    Base::Inline(image) => (Start::Inline(image), Vec::new()),
                    Base::Stored(image) => (Start::Stored(image), Vec::new()),
                    Base::Continue(earlier) => match self.held.remove(&earlier) {
                        Some(Held { state: Some(state), changes, .. }) => (state, changes),
                        _ => {
                            self.orphans.insert(claim);
                            return Ok(());
                        }
                    },
                };
                self.held.insert(claim, Held { id, term, state: Some(state), changes });
            }
            Entry::Change { claim, change } => match self.held.get_mut(&claim) {
                Some(held) if held.id == change.id => held.changes.push(change),
                Some(_) => return Err(Broken("has a record of another partition")),
                None => drop(self.orphans.insert(claim)),
            },
            Entry::Remove { id, term, claim } => {
                self.held.insert(claim, Held { id, term, state: None, changes: Vec::new() });
            }
        }
        Ok(())
    }

    async fn finish(
        mut self,
        objects: &Objects,
        log: &LogName,
        wanted: &BTreeSet<Nonce>,
        first: u64,
    ) -> Attempt<Reading> {
        let mut reading = Reading {
            found: HashMap::new(),
            lacking: HashSet::new(),
            first,
            known: self.held.values().map(|held| (held.id.clone(), held.term)).collect(),
        };
        for claim in wanted {
            let Some(held) = self.held.remove(claim) else {
                if self.orphans.contains(claim) {
                    reading.lacking.insert(*claim);
                }
                continue;
            };
            let found = match held.state {
                Some(state) => Found::State(present!(make(objects, log, &state, &held.changes).await?)),
                None => Found::Removed,
            };
            reading.found.insert(*claim, found);
        }
        Ok(Ok(reading))
    }
}

async fn make(objects: &Objects, log: &LogName, start: &Start, changes: &[Change]) -> Attempt<Image> {
    let mut path = log.segments();
    let mut image = match start {
        Start::Empty => Image::default(),
        Start::Inline(image) => Image::decode(image).map_err(|broken| ObjectError::corrupt(&path, broken))?,
        Start::Stored(place) => {
            path = log.checkpoint(place.checkpoint);
            match objects.get_range(&path, place.offset, place.length).await? {
                Some(object) => {
                    Image::decode(&object).map_err(|broken| ObjectError::corrupt(&path, broken))?
                }
                None => return Ok(Err(Gone(path.to_string()))),
            }
        }
    };
    for change in changes {
        image.apply(change).map_err(|broken| ObjectError::corrupt(&log.segments(), broken))?;
    }
    Ok(Ok(image))
}
