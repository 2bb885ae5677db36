//! The bytes of a file, by pages. Pages that were never written are zeros and take no memory.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// Bytes that a disk writes wholly or not at all.
pub(crate) const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

/// Copies share their pages until one of them is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    size: u64,
    pages: BTreeMap<u64, Page>,
}

fn split(offset: u64) -> (u64, usize) {
    let within = offset % PAGE as u64;
    (offset / PAGE as u64, usize::try_from(within).expect("less than a page"))
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes from `offset` on, at most `length`.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        let mut at = 0;
        while at < bytes.len() {
            let (number, within) = split(offset + at as u64);
            let count = (PAGE - within).min(bytes.len() - at);
            if let Some(page) = self.pages.get(&number) {
                bytes[at..at + count].copy_from_slice(&page[within..within + count]);
            }
            at += count;
        }
        bytes
    }

    /// Writes bytes, and says which pages they are in.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Vec<u64> {
        let mut touched = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (number, within) = split(offset + at as u64);
            let count = (PAGE - within).min(bytes.len() - at);
            self.page_mut(number)[within..within + count].copy_from_slice(&bytes[at..at + count]);
            touched.push(number);
            at += count;
        }
        self.size = self.size.max(offset + bytes.len() as u64);
        touched
    }

    pub(crate) fn resize(&mut self, size: u64) {
        if size < self.size {
            let (number, within) = split(size);
            self.pages.split_off(&(number + u64::from(within > 0)));
            if let Some(page) = self.pages.get_mut(&number) {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.size = size;
    }

    /// Takes a page over from another state of the same file.
    pub(crate) fn take_page(&mut self, from: &Self, number: u64) {
        match from.pages.get(&number) {
            Some(page) => self.pages.insert(number, page.clone()),
            None => self.pages.remove(&number),
        };
    }

    /// Takes one sector of a page over.
    pub(crate) fn take_sector(&mut self, from: &Self, number: u64, sector: usize) {
        let bytes = sector * SECTOR..(sector + 1) * SECTOR;
        let new = from
            .pages
            .get(&number)
            .map_or([0; SECTOR], |page| page[bytes.clone()].try_into().expect("a sector"));
        self.page_mut(number)[bytes].copy_from_slice(&new);
    }

    fn page_mut(&mut self, number: u64) -> &mut [u8; PAGE] {
        Arc::make_mut(self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE])))
    }
}
