//! Pages of keys: what a snapshot holds with a command's own writes laid over it.
//!
//! The cursor of `wasi:keyvalue` is a number. Here it counts the keys before the page, so that it also means
//! something in a later request; a page costs the keys that it skips.

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::iter::Peekable;

use bytes::Bytes;

use crate::state::{MAX_PAGE_KEYS, ReadError, Snapshot};
use crate::worker::give_way;

/// The writes to one bucket; `None` deletes.
type Writes = BTreeMap<String, Option<Bytes>>;

/// Some keys of a bucket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) keys: Vec<String>,
    /// Where the next page begins; absent at the end.
    pub(super) next: Option<u64>,
}

/// The page that begins after `skip` keys. It gives way to the worker's other work for each page that it skips.
pub(super) async fn page(
    snapshot: &mut Box<dyn Snapshot>,
    writes: Option<&Writes>,
    bucket: &str,
    skip: u64,
) -> Result<Page, ReadError> {
    let mut keys = Vec::new();
    let mut position = 0;
    let mut merged = Merged::new(writes);
    let mut cursor = None;
    loop {
        let stored = snapshot.list_keys(bucket, cursor.as_deref(), MAX_PAGE_KEYS)?;
        merged.add(stored.keys, stored.next.is_none());
        cursor = stored.next;
        while let Some(key) = merged.next_key() {
            if keys.len() == MAX_PAGE_KEYS {
                return Ok(Page { keys, next: Some(position) });
            }
            if position >= skip {
                keys.push(key);
            }
            position += 1;
            // A command may have written hundreds of thousands of keys.
            if position.is_multiple_of(MAX_PAGE_KEYS as u64) {
                give_way().await;
            }
        }
        if cursor.is_none() {
            return Ok(Page { keys, next: None });
        }
        give_way().await;
    }
}

/// Keys of the snapshot and of the writes, in order, without those that were deleted.
struct Merged<'a> {
    stored: VecDeque<String>,
    stored_end: bool,
    written: Option<Peekable<btree_map::Iter<'a, String, Option<Bytes>>>>,
}

impl<'a> Merged<'a> {
    fn new(writes: Option<&'a Writes>) -> Self {
        Self {
            stored: VecDeque::new(),
            stored_end: false,
            written: writes.map(|writes| writes.iter().peekable()),
        }
    }

    /// Adds the next stored keys, and says whether they are the last.
    fn add(&mut self, keys: Vec<String>, end: bool) {
        self.stored.extend(keys);
        self.stored_end = end;
    }

    /// The next key, as far as the stored keys reach that were added.
    fn next_key(&mut self) -> Option<String> {
        while !self.stored.is_empty() || self.stored_end {
            let written = self.written.as_mut().and_then(Peekable::peek).copied();
            let Some((key, value)) = written else { return self.stored.pop_front() };
            match self.stored.front() {
                Some(stored) if stored < key => return self.stored.pop_front(),
                Some(stored) if stored == key => drop(self.stored.pop_front()),
                _ => {}
            }
            if let Some(written) = &mut self.written {
                written.next();
            }
            if value.is_some() {
                return Some(key.clone());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use hvm_types::Sequence;

    use super::*;
    use crate::state::KeyPage;

    struct Stored(Vec<String>);

    impl Snapshot for Stored {
        fn sequence(&self) -> Sequence {
            Sequence(1)
        }

        fn get(&self, _bucket: &str, _key: &str) -> Result<Option<Bytes>, ReadError> {
            Ok(None)
        }

        fn list_keys(&self, _: &str, cursor: Option<&str>, limit: usize) -> Result<KeyPage, ReadError> {
            let after: Vec<_> = self
                .0
                .iter()
                .filter(|key| cursor.is_none_or(|cursor| key.as_str() > cursor))
                .cloned()
                .collect();
            let keys: Vec<_> = after.iter().take(limit).cloned().collect();
            let next = (after.len() > limit).then(|| keys.last().cloned()).flatten();
            Ok(KeyPage { keys, next })
        }
    }

    fn listed(stored: Stored, writes: Option<&Writes>, skip: u64) -> Page {
        let mut snapshot: Box<dyn Snapshot> = Box::new(stored);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(page(&mut snapshot, writes, "default", skip)).expect("readable")
    }

    fn keys(range: std::ops::Range<u32>) -> Vec<String> {
        range.map(|n| format!("{n:05}")).collect()
    }

    #[test]
    fn writes_and_deletions_of_the_command_show_in_its_listing() {
        let stored = Stored(vec!["b".into(), "d".into(), "f".into()]);
        let mut writes = Writes::new();
        writes.insert("a".into(), Some(Bytes::new()));
        writes.insert("b".into(), Some(Bytes::new()));
        writes.insert("d".into(), None);
        writes.insert("e".into(), None);
        writes.insert("g".into(), Some(Bytes::new()));
        let page = listed(stored, Some(&writes), 0);
        assert_eq!(page, Page { keys: ["a", "b", "f", "g"].map(str::to_owned).to_vec(), next: None });
    }

    #[test]
    fn pages_together_hold_every_key_once() {
        for count in [0, 1, 999, 1000, 1001, 2500] {
            let mut writes = Writes::new();
            for key in keys(count..count + 700) {
                writes.insert(key, Some(Bytes::new()));
            }
            let (mut seen, mut cursor) = (Vec::new(), Some(0));
            while let Some(skip) = cursor {
                let page = listed(Stored(keys(0..count)), Some(&writes), skip);
                assert!(page.keys.len() <= MAX_PAGE_KEYS);
                seen.extend(page.keys);
                cursor = page.next;
            }
            assert_eq!(seen, keys(0..count + 700), "with {count} stored keys");
        }
    }

    #[test]
    fn a_cursor_behind_the_end_finds_nothing() {
        let page = listed(Stored(keys(0..3)), None, u64::MAX);
        assert_eq!(page, Page { keys: Vec::new(), next: None });
    }
}
