//! Compiled code on disk, by component digest and engine profile.
//!
//! Compiled code is machine code: loading it runs it. So the directory belongs to this user alone (mode 0700),
//! every file carries the digest of its content, and only what passes both is loaded. What does not is removed
//! and compiled anew. Files appear by rename, so a half-written one is never seen.

use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hvm_types::{ByteSize, Digest};
use wasmtime::Engine;

use crate::StartError;

const MAGIC: [u8; 8] = *b"HVMCODE1";
const HEADER_BYTES: usize = MAGIC.len() + 32;
const SUFFIX: &str = "cwasm";

/// The directory of compiled code for one engine profile.
#[derive(Debug)]
pub(crate) struct CodeCache {
    folder: PathBuf,
    profile: u64,
    limit: ByteSize,
}

impl CodeCache {
    /// Opens the directory and makes it where it is missing.
    pub(crate) fn open(folder: &Path, limit: ByteSize, engine: &Engine) -> Result<Self, StartError> {
        let refuse = |reason: String| StartError::CodeCache { path: folder.to_owned(), reason };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| refuse(error.to_string()))?;
        let metadata = fs::symlink_metadata(folder).map_err(|error| refuse(error.to_string()))?;
        check_owner(&metadata).map_err(|reason| refuse(reason.to_owned()))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .map_err(|error| refuse(error.to_string()))?;
        // The hash is of this build's own making and only names files; equal names are checked by content.
        let mut profile = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut profile);
        crate::interrupt::VERSION.hash(&mut profile);
        Ok(Self { folder: folder.to_owned(), profile: profile.finish(), limit })
    }

    fn path(&self, component: Digest) -> PathBuf {
        self.folder.join(format!("{}-{:016x}.{SUFFIX}", component.to_hex(), self.profile))
    }

    /// The compiled code of a component, if it is here and whole.
    pub(crate) fn load(&self, component: Digest) -> Option<Vec<u8>> {
        let path = self.path(component);
        match read_checked(&path) {
            Ok(code) => code,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled code is damaged: compiling it anew");
                self.forget(component);
                None
            }
        }
    }

    /// Removes what does not load.
    pub(crate) fn forget(&self, component: Digest) {
        if let Err(error) = fs::remove_file(self.path(component)) {
            tracing::warn!(%error, %component, "compiled code can't be removed");
        }
    }

    /// Keeps compiled code. A failure costs time at the next start and nothing else.
    pub(crate) fn store(&self, component: Digest, code: &[u8]) {
        let written = self.write(component, code).and_then(|()| self.prune());
        if let Err(error) = written {
            tracing::warn!(folder = %self.folder.display(), %error, "compiled code can't be kept");
        }
    }

    fn write(&self, component: Digest, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
        file.write_all(&MAGIC)?;
        file.write_all(Digest::of(code).as_bytes())?;
        file.write_all(code)?;
        file.as_file().sync_all()?;
        file.persist(self.path(component))?;
        Ok(())
    }

    /// Removes the oldest files until the directory is within its limit.
    fn prune(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|end| end == SUFFIX) {
                let metadata = entry.metadata()?;
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut sum: u64 = files.iter().map(|(_, size, _)| size).sum();
        // The newest stays: it was written just now.
        for (_, size, path) in files.iter().take(files.len().saturating_sub(1)) {
            if sum <= self.limit.0 {
                break;
            }
            fs::remove_file(path)?;
            sum -= size;
        }
        Ok(())
    }
}

fn check_owner(metadata: &Metadata) -> Result<(), &'static str> {
    if !metadata.is_dir() {
        return Err("it is not a directory");
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err("it belongs to another user; use a directory of your own");
    }
    Ok(())
}

fn read_checked(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let damaged = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(damaged("it belongs to another user"));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header)?;
    let (magic, digest) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(damaged("it does not begin as compiled code"));
    }
    let mut code = Vec::new();
    file.read_to_end(&mut code)?;
    if Digest::of(&code).as_bytes() != digest {
        return Err(damaged("its content does not match its digest"));
    }
    Ok(Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path, limit: ByteSize) -> CodeCache {
        CodeCache::open(folder, limit, &Engine::default()).expect("a fresh directory")
    }

    #[test]
    fn code_is_found_again_and_damaged_code_is_not() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let cache = cache(&folder.path().join("code"), ByteSize::mib(1));
        let component = Digest::of(b"component");
        assert_eq!(cache.load(component), None);
        cache.store(component, b"machine code");
        assert_eq!(cache.load(component).as_deref(), Some(&b"machine code"[..]));

        let path = cache.path(component);
        let mut bytes = fs::read(&path).expect("the file");
        *bytes.last_mut().expect("not empty") ^= 1;
        fs::write(&path, bytes).expect("damage it");
        assert_eq!(cache.load(component), None);
        assert!(!path.exists(), "the damaged file is still there");
    }

    #[test]
    fn the_directory_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("code");
        fs::create_dir(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("opened to all");
        cache(&path, ByteSize::mib(1));
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn the_oldest_code_goes_when_there_is_too_much() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let cache = cache(&folder.path().join("code"), ByteSize(250));
        let digests = [b"1", b"2", b"3"].map(|name| Digest::of(name));
        for (age, digest) in digests.iter().enumerate() {
            cache.store(*digest, &[0; 60]);
            let file = File::options().write(true).open(cache.path(*digest)).expect("kept");
            let old = SystemTime::now() - std::time::Duration::from_secs(100 - age as u64);
            file.set_modified(old).expect("aged");
        }
        assert!(cache.load(digests[0]).is_none(), "the oldest was kept");
        assert!(cache.load(digests[1]).is_some() && cache.load(digests[2]).is_some());
    }
}
