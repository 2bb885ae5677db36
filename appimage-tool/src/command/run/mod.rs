//! `appimage-tool run`: one package of an image, served on this machine until a signal comes. The HVM is the one that
//! agents use; what is missing here is everything around it: no scheduler, no routes, one partition.

mod log_lines;
mod package;
mod serve;
mod server;

pub(super) use serve::run;
