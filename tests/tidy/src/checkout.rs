//! The checkout as the rules see it: every text file that belongs to the project, read once.
//! Build output and installed packages are left out, and so is what is not UTF-8.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Folders that hold what was made or fetched, never what was written here.
const NOT_OURS: [&str; 3] = [".git", "target", "node_modules"];

/// One text file.
#[derive(Debug, Clone)]
pub struct TextFile {
    /// Relative to the root, with `/` between its parts.
    pub path: String,
    /// The whole content.
    pub text: String,
    /// Whether anyone may execute it.
    pub executable: bool,
}

impl TextFile {
    /// A file that only exists in a test.
    #[must_use]
    pub fn example(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            executable: false,
        }
    }

    /// The lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}

/// All text files of the project.
#[derive(Debug)]
pub struct Checkout {
    /// The folder that holds the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Sorted by path.
    pub files: Vec<TextFile>,
}

impl Checkout {
    /// Reads the checkout that this crate was built in.
    ///
    /// # Errors
    /// When a folder or file can't be read.
    pub fn read() -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()?;
        let mut files = Vec::new();
        read_folder(&root, &root, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { root, files })
    }

    /// The files whose name ends so.
    pub fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = &'a TextFile> {
        self.files.iter().filter(move |file| file.path.ends_with(end))
    }

    /// The file at `path`, if there is one.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&TextFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

fn read_folder(root: &Path, folder: &Path, files: &mut Vec<TextFile>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name();
        if kind.is_dir() {
            if !NOT_OURS.iter().any(|other| name == *other) {
                read_folder(root, &entry.path(), files)?;
            }
        } else if kind.is_file()
            && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
        {
            let path = entry.path();
            let relative = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            files.push(TextFile {
                path: relative,
                text,
                executable: is_executable(&entry.path())?,
            });
        }
    }
    Ok(())
}

#[cfg(unix)]
fn is_executable(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::metadata(path)?.permissions().mode() & 0o111 != 0)
}
