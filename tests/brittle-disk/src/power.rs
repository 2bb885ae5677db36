//! The state of a disk with a cache above it: what processes see, what is safe, and what lies between.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::{PAGE, SECTOR};
use crate::names::{Change, Names, Node, Number};

/// What a cut of the power took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// Changes of names and sizes that had not reached the disk, and of them those that are lost.
    pub changes: (usize, usize),
    /// Written pages that had not, and of them those that are lost.
    pub pages: (usize, usize),
    /// Of all these pages, those of which only some sectors are there.
    pub torn: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Power {
    /// What processes see.
    pub(crate) seen: Names,
    /// What is on the disk whatever happens.
    safe: Names,
    /// The changes from `safe` to `seen`.
    changes: Vec<Change>,
    /// The pages that were written since their file was synced.
    dirty: BTreeMap<Number, BTreeSet<u64>>,
    /// Changes and syncs that still pass, where not all do.
    left: Option<u64>,
    /// Whether one did not.
    pub(crate) stopped: bool,
}

impl Power {
    pub(crate) fn new(root: Node) -> Self {
        let seen = Names::new(root);
        let (changes, dirty) = (Vec::new(), BTreeMap::new());
        Self { safe: seen.clone(), seen, changes, dirty, left: None, stopped: false }
    }

    /// Lets so many more changes and syncs pass; all of them with `None`.
    pub(crate) fn limit(&mut self, left: Option<u64>) {
        (self.left, self.stopped) = (left, false);
    }

    /// Counts a change or a sync. Where it may not pass, nothing passes any more.
    pub(crate) fn pass(&mut self) -> bool {
        match &mut self.left {
            None => {}
            Some(0) => self.stopped = true,
            Some(left) => *left -= 1,
        }
        !self.stopped
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.seen.apply(&change);
        if let Change::Resize { number, size } = &change
            && let Some(pages) = self.dirty.get_mut(number)
        {
            pages.split_off(&size.div_ceil(PAGE as u64));
        }
        self.changes.push(change);
    }

    pub(crate) fn write(&mut self, number: Number, offset: u64, bytes: &[u8]) -> bool {
        let Some(content) = self.seen.content_mut(number) else { return false };
        let pages = content.write(offset, bytes);
        self.dirty.entry(number).or_default().extend(pages);
        true
    }

    /// Brings a file or directory to the disk.
    pub(crate) fn sync(&mut self, number: Number) {
        if self.changes.iter().any(|change| self.seen.concerns(change, number)) {
            self.changes.drain(..).for_each(|change| self.safe.apply(&change));
        }
        let pages = self.dirty.remove(&number).unwrap_or_default();
        let (Some(seen), Some(safe)) = (self.seen.content(number), self.safe.content_mut(number)) else {
            return;
        };
        for page in pages {
            safe.take_page(seen, page);
        }
        safe.resize(seen.size());
    }

    /// Brings everything to the disk.
    pub(crate) fn sync_all(&mut self) {
        self.changes.clear();
        self.dirty.clear();
        self.safe = self.seen.clone();
    }

    /// What should have been brought to the disk never will be, though it can be read.
    pub(crate) fn lose(&mut self, number: Number) {
        self.dirty.remove(&number);
    }

    /// Leaves what is safe and a part of the rest, as the numbers from `draw` (below its argument) say.
    pub(crate) fn cut(&mut self, draw: &mut dyn FnMut(usize) -> usize) -> Cut {
        self.limit(None);
        let mut cut = Cut::default();
        let kept = match draw(3) {
            0 => 0,
            1 => self.changes.len(),
            _ => draw(self.changes.len() + 1),
        };
        cut.changes = (self.changes.len(), self.changes.len() - kept);
        self.changes.drain(..).take(kept).for_each(|change| self.safe.apply(&change));
        for (number, pages) in std::mem::take(&mut self.dirty) {
            self.keep_some(number, &pages, draw, &mut cut);
        }
        self.safe.forget_unnamed();
        self.seen = self.safe.clone();
        cut
    }

    fn keep_some(
        &mut self,
        number: Number,
        pages: &BTreeSet<u64>,
        draw: &mut dyn FnMut(usize) -> usize,
        cut: &mut Cut,
    ) {
        cut.pages.0 += pages.len();
        let (Some(seen), Some(safe)) = (self.seen.content(number), self.safe.content_mut(number)) else {
            cut.pages.1 += pages.len();
            return;
        };
        let mut end = safe.size();
        let habit = draw(4);
        for &page in pages {
            let mut reached = |bytes: usize| {
                end = end.max((page * PAGE as u64 + bytes as u64).min(seen.size()));
            };
            // 0: nothing reached the disk; 1: everything; else each page has a fate of its own.
            let fate = if habit < 2 { habit } else { draw(3) };
            match fate {
                0 => cut.pages.1 += 1,
                1 => {
                    safe.take_page(seen, page);
                    reached(PAGE);
                }
                _ => {
                    cut.torn += 1;
                    for sector in 0..PAGE / SECTOR {
                        if draw(2) == 1 {
                            safe.take_sector(seen, page, sector);
                            reached((sector + 1) * SECTOR);
                        }
                    }
                }
            }
        }
        safe.resize(end);
    }
}
