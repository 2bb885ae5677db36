//! Copies of whole directories.

use std::fs;
use std::path::Path;

/// Copies a directory that nobody writes to.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
    let permissions = fs::metadata(from).expect("a directory").permissions();
    fs::set_permissions(to, permissions).expect("permissions");
}
