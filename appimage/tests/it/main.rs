//! The format as others meet it: images that are right, and every way in which one can be wrong.

mod hostile;
mod images;
mod packing;
mod raw_tar;
mod reading;
mod signing;
mod sigstore;
mod trust;
