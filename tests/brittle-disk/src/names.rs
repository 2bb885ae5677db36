//! The tree of names, and the changes that are made to it: the same for what processes see and for what is on the
//! disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use crate::content::Content;

/// The number of a file or directory.
pub(crate) type Number = u64;
/// The root directory's.
pub(crate) const ROOT: Number = 1;

#[derive(Debug, Clone)]
pub(crate) enum Body {
    File(Content),
    Directory(BTreeMap<OsString, Number>),
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) mode: u16,
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) body: Body,
}

/// A change of names, sizes or rights. They reach the disk in their order.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Create { parent: Number, name: OsString, number: Number, node: Node },
    Remove { parent: Number, name: OsString },
    Rename { parent: Number, name: OsString, to: Number, to_name: OsString },
    Resize { number: Number, size: u64 },
    Mode { number: Number, mode: u16 },
}

#[derive(Debug, Clone)]
pub(crate) struct Names(BTreeMap<Number, Node>);

impl Names {
    pub(crate) fn new(root: Node) -> Self {
        Self(BTreeMap::from([(ROOT, root)]))
    }

    pub(crate) fn node(&self, number: Number) -> Option<&Node> {
        self.0.get(&number)
    }

    pub(crate) fn content(&self, number: Number) -> Option<&Content> {
        match &self.node(number)?.body {
            Body::File(content) => Some(content),
            Body::Directory(_) => None,
        }
    }

    pub(crate) fn content_mut(&mut self, number: Number) -> Option<&mut Content> {
        match &mut self.0.get_mut(&number)?.body {
            Body::File(content) => Some(content),
            Body::Directory(_) => None,
        }
    }

    pub(crate) fn entries(&self, number: Number) -> Option<&BTreeMap<OsString, Number>> {
        match &self.node(number)?.body {
            Body::File(_) => None,
            Body::Directory(entries) => Some(entries),
        }
    }

    pub(crate) fn find(&self, parent: Number, name: &OsStr) -> Option<Number> {
        self.entries(parent)?.get(name).copied()
    }

    fn entries_mut(&mut self, number: Number) -> Option<&mut BTreeMap<OsString, Number>> {
        match &mut self.0.get_mut(&number)?.body {
            Body::File(_) => None,
            Body::Directory(entries) => Some(entries),
        }
    }

    /// Makes a change. What it needs is there, because all changes before it were made.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { parent, name, number, node } => {
                self.0.insert(*number, node.clone());
                if let Some(entries) = self.entries_mut(*parent) {
                    entries.insert(name.clone(), *number);
                }
            }
            Change::Remove { parent, name } => {
                // The node stays for those who have it open, until `forget_unnamed`.
                if let Some(entries) = self.entries_mut(*parent) {
                    entries.remove(name);
                }
            }
            Change::Rename { parent, name, to, to_name } => {
                let moved = self.entries_mut(*parent).and_then(|entries| entries.remove(name));
                if let (Some(number), Some(entries)) = (moved, self.entries_mut(*to)) {
                    entries.insert(to_name.clone(), number);
                }
            }
            Change::Resize { number, size } => {
                if let Some(content) = self.content_mut(*number) {
                    content.resize(*size);
                }
            }
            Change::Mode { number, mode } => {
                if let Some(node) = self.0.get_mut(number) {
                    node.mode = *mode;
                }
            }
        }
    }

    /// Whether a sync of this file or directory has to bring the change to the disk.
    pub(crate) fn concerns(&self, change: &Change, of: Number) -> bool {
        match change {
            Change::Create { parent, number, .. } => *parent == of || *number == of,
            Change::Remove { parent, .. } => *parent == of,
            Change::Rename { parent, to, to_name, .. } => {
                *parent == of || *to == of || self.find(*to, to_name) == Some(of)
            }
            Change::Resize { number, .. } | Change::Mode { number, .. } => *number == of,
        }
    }

    /// Drops what has no name. Nobody has it open any more.
    pub(crate) fn forget_unnamed(&mut self) {
        let (mut open, mut named) = (vec![ROOT], BTreeSet::from([ROOT]));
        while let Some(number) = open.pop() {
            let below: Vec<Number> =
                self.entries(number).into_iter().flatten().map(|(_, number)| *number).collect();
            named.extend(&below);
            open.extend(below);
        }
        self.0.retain(|number, _| named.contains(number));
    }

    /// The path below the root, for people and for rules.
    pub(crate) fn path(&self, number: Number) -> String {
        let parent = self.0.iter().find_map(|(parent, node)| match &node.body {
            Body::Directory(entries) => {
                entries.iter().find(|(_, below)| **below == number).map(|(name, _)| (*parent, name))
            }
            Body::File(_) => None,
        });
        match parent {
            Some((parent, name)) => format!("{}/{}", self.path(parent), name.to_string_lossy()),
            None => String::new(),
        }
    }
}
