//! The three counters that order what happens: generations of a deployment, epochs of an ownership,
//! sequences of a partition's commits.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            ///
            /// # Panics
            /// At 2⁶⁴, which no machine counts to.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a counter never reaches 2^64"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

counters! {
    /// Number of an accepted change of a deployment, from 1.
    Generation;
    /// Number of an ownership of a partition, from 1. Every durable write carries it; a write with an
    /// older one is fenced.
    Epoch;
    /// Number of a partition's committed record, from 1; 0 means that nothing was committed.
    Sequence;
}
