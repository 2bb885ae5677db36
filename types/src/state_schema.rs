//! In which layouts an app keeps its durable state, and which of them a version can bring into its own.

use serde::{Deserialize, Serialize};

/// The layouts of durable state that one version of an app knows. They are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSchema {
    /// The layout that it reads and writes.
    pub version: u32,
    /// The oldest layout that its migration accepts; none where it has no migration.
    pub migrates_from: Option<u32>,
}

/// Why a version can't run on the state that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The state was written or migrated by a newer version.
    #[error(
        "the state is in layout {stored}, and this version knows {version} and none newer: run the version that \
         wrote it, or a newer one"
    )]
    Newer {
        /// The layout of the state.
        stored: u32,
        /// That of the version.
        version: u32,
    },
    /// The version declares no migration.
    #[error(
        "the state is in layout {stored}, this version needs {version} and has no migration: deploy one whose \
         `migrates_from` is {stored} or lower"
    )]
    NoMigration {
        /// The layout of the state.
        stored: u32,
        /// That of the version.
        version: u32,
    },
    /// The version's migration does not go back so far.
    #[error(
        "the state is in layout {stored}, and the migration of this version to {version} begins with {migrates_from}: \
         deploy a version in between first"
    )]
    TooOld {
        /// The layout of the state.
        stored: u32,
        /// That of the version.
        version: u32,
        /// The oldest that it migrates.
        migrates_from: u32,
    },
}

impl Default for StateSchema {
    fn default() -> Self {
        Self { version: 1, migrates_from: None }
    }
}

impl StateSchema {
    /// Whether state in the layout `stored` has to be migrated before this version may run on it.
    ///
    /// # Errors
    /// Where it may not at all.
    pub const fn must_migrate(self, stored: u32) -> Result<bool, SchemaError> {
        let version = self.version;
        if stored == version {
            return Ok(false);
        }
        if stored > version {
            return Err(SchemaError::Newer { stored, version });
        }
        match self.migrates_from {
            None => Err(SchemaError::NoMigration { stored, version }),
            Some(migrates_from) if stored < migrates_from => {
                Err(SchemaError::TooOld { stored, version, migrates_from })
            }
            Some(_) => Ok(true),
        }
    }

    /// What makes no sense about it, as the end of a sentence.
    #[must_use]
    pub fn problem(self) -> Option<String> {
        let version = self.version;
        match self.migrates_from {
            _ if version == 0 => Some("its state_schema is 0, and the first is 1".to_owned()),
            Some(0) => Some("its migrates_from is 0, and the first state_schema is 1".to_owned()),
            Some(from) if from >= version => Some(format!(
                "its migrates_from is {from}: a migration to state_schema {version} begins with an older one"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_accepted_older_layouts_are_migrated() {
        let schema = StateSchema { version: 4, migrates_from: Some(2) };
        assert_eq!(schema.must_migrate(4), Ok(false));
        assert_eq!((schema.must_migrate(2), schema.must_migrate(3)), (Ok(true), Ok(true)));
        let too_old = SchemaError::TooOld { stored: 1, version: 4, migrates_from: 2 };
        assert_eq!(schema.must_migrate(1), Err(too_old));
        assert_eq!(schema.must_migrate(5), Err(SchemaError::Newer { stored: 5, version: 4 }));
        let none = StateSchema { migrates_from: None, ..schema };
        assert_eq!(none.must_migrate(3), Err(SchemaError::NoMigration { stored: 3, version: 4 }));
        assert_eq!(none.must_migrate(4), Ok(false));
    }

    #[test]
    fn a_migration_begins_with_an_older_layout() {
        let problem = |version, migrates_from| StateSchema { version, migrates_from }.problem();
        assert_eq!((problem(1, None), problem(2, Some(1)), problem(9, Some(8))), (None, None, None));
        for (version, migrates_from) in [(0, None), (1, Some(1)), (2, Some(0)), (2, Some(3))] {
            assert!(problem(version, migrates_from).is_some(), "{version} from {migrates_from:?}");
        }
    }
}
