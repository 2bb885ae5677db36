//! Why a component can't be made interruptible.

/// Why a component can't be made interruptible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterruptibleError {
    /// It is not valid, or uses what is not offered.
    #[error("{reason} (at byte {offset})")]
    Invalid {
        /// What is wrong.
        reason: String,
        /// Where, counted from the beginning of the component.
        offset: usize,
    },
    /// An instruction whose way through the code is not understood.
    #[error("the instruction {instruction} is not offered (at byte {offset})")]
    Instruction {
        /// Its name.
        instruction: String,
        /// Where, counted from the beginning of the component.
        offset: usize,
    },
    /// It has no room for what is added.
    #[error("{what} can't take one more; make the module smaller")]
    Full {
        /// What is full.
        what: &'static str,
    },
}

impl From<wasmparser::BinaryReaderError> for InterruptibleError {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Invalid { reason: error.message().to_owned(), offset: error.offset() }
    }
}
