//! `appimage-tool` as a person uses it.

mod commands;
mod serving;
mod workbench;
