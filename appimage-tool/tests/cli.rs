//! `appimage-tool` as a person uses it: exit codes, what stands on which stream, and the files it leaves.
