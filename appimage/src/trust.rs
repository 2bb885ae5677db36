//! A host's trust policy: whose signature lets which app run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hvm_types::AppName;
use serde::Deserialize;
use toml::Spanned;

use crate::key::{KeyError, KeyId, PublicKey};
use crate::text_position::{TomlError, parse_toml};

/// Largest policy file, in bytes.
const MAX_POLICY_BYTES: u64 = 1 << 20;

/// Which keys may sign which apps, and how many must. What it does not name is not trusted.
///
/// A policy file is TOML:
/// ```toml
/// threshold = 1                       # signatures by different keys that an image needs
/// revoked = ["5f0c…"]                 # ids of keys that count no more, whatever stands below
///
/// [[key]]
/// file = "release.pub"                # beside the policy; or pem = """-----BEGIN PUBLIC KEY-----…"""
/// apps = ["flightboard", "team-*"]    # names, or beginnings of names; ["*"] for all
///
/// [lowest]
/// flightboard = "1.2.0"               # older versions are refused
/// ```
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    keys: BTreeMap<KeyId, TrustedKey>,
    revoked: BTreeSet<KeyId>,
    threshold: usize,
    lowest: BTreeMap<AppName, semver::Version>,
}

#[derive(Debug, Clone)]
struct TrustedKey {
    key: PublicKey,
    apps: Vec<AppPattern>,
}

/// Why a policy can't be used. Whoever gets one runs nothing.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file can't be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A public key file holds no public key.
    #[error("cannot use {} as a public key", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// The policy file is wrong; the text names file, line and field.
    #[error("{0}")]
    Invalid(String),
}

impl From<TomlError> for PolicyError {
    fn from(error: TomlError) -> Self {
        Self::Invalid(error.to_string())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    threshold: Option<Spanned<usize>>,
    #[serde(default)]
    revoked: Vec<Spanned<String>>,
    #[serde(default)]
    key: Vec<Spanned<KeyEntry>>,
    #[serde(default)]
    lowest: BTreeMap<AppName, semver::Version>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    file: Option<PathBuf>,
    pem: Option<String>,
    apps: Vec<Spanned<String>>,
}

impl TrustPolicy {
    /// One key that may sign every app.
    #[must_use]
    pub fn of_key(key: PublicKey) -> Self {
        let trusted = TrustedKey { key: key.clone(), apps: vec![AppPattern::Prefix(String::new())] };
        Self {
            keys: BTreeMap::from([(key.id(), trusted)]),
            revoked: BTreeSet::new(),
            threshold: 1,
            lowest: BTreeMap::new(),
        }
    }

    /// Reads a policy file, or a public key (`.pub`), which is then trusted for every app.
    ///
    /// # Errors
    /// Where a file can't be read or is wrong, or where the policy could never be satisfied.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let text = read_text(path)?;
        if text.trim_start().starts_with("-----BEGIN") {
            let key = PublicKey::from_pem(&text);
            return key
                .map(Self::of_key)
                .map_err(|source| PolicyError::Key { path: path.to_owned(), source });
        }
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, PolicyError> {
        let file: PolicyFile = parse_toml(path, text)?;
        let invalid = |span, reason: String| TomlError::at(path, text, span, reason);
        let mut keys = BTreeMap::new();
        for entry in file.key {
            let span = entry.span();
            let trusted = read_key(path, text, span.clone(), entry.into_inner())?;
            let id = trusted.key.id();
            if keys.insert(id, trusted).is_some() {
                return Err(invalid(span, format!("key {id} stands here twice")).into());
            }
        }
        if keys.is_empty() {
            return Err(invalid(0..0, "the policy trusts no key: add a [[key]]".to_owned()).into());
        }
        let mut revoked = BTreeSet::new();
        for id in file.revoked {
            let reason = "a revoked key is named by its id, 64 lowercase hex digits";
            let parsed = id.get_ref().parse().map_err(|_| invalid(id.span(), reason.to_owned()))?;
            revoked.insert(parsed);
        }
        let (threshold, span) = file.threshold.map_or((1, 0..0), |t| (*t.get_ref(), t.span()));
        if !(1..=keys.len()).contains(&threshold) {
            let reason = format!("the threshold must be from 1 to the number of keys, {}", keys.len());
            return Err(invalid(span, reason).into());
        }
        Ok(Self { keys, revoked, threshold, lowest: file.lowest })
    }

    pub(crate) fn key(&self, id: KeyId) -> Option<&PublicKey> {
        self.keys.get(&id).map(|trusted| &trusted.key)
    }

    pub(crate) fn revokes(&self, id: KeyId) -> bool {
        self.revoked.contains(&id)
    }

    pub(crate) fn may_sign(&self, id: KeyId, app: &AppName) -> bool {
        self.keys.get(&id).is_some_and(|trusted| trusted.apps.iter().any(|pattern| pattern.matches(app)))
    }

    pub(crate) fn threshold(&self) -> usize {
        self.threshold
    }

    pub(crate) fn lowest(&self, app: &AppName) -> Option<&semver::Version> {
        self.lowest.get(app)
    }
}

fn read_text(path: &Path) -> Result<String, PolicyError> {
    use std::io::Read as _;
    let io = |source| PolicyError::Io { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(MAX_POLICY_BYTES + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_POLICY_BYTES {
        return Err(io(std::io::Error::other(format!("it is larger than {MAX_POLICY_BYTES} bytes"))));
    }
    Ok(text)
}

fn read_key(
    path: &Path,
    text: &str,
    span: std::ops::Range<usize>,
    entry: KeyEntry,
) -> Result<TrustedKey, PolicyError> {
    let invalid = |span, reason: String| TomlError::at(path, text, span, reason);
    let key = match (entry.file, entry.pem) {
        (Some(file), None) => {
            let file = path.parent().unwrap_or(Path::new(".")).join(file);
            PublicKey::from_pem(&read_text(&file)?)
                .map_err(|source| PolicyError::Key { path: file, source })?
        }
        (None, Some(pem)) => {
            PublicKey::from_pem(&pem).map_err(|error| invalid(span.clone(), format!("`pem`: {error}")))?
        }
        _ => return Err(invalid(span, "a [[key]] needs either `file` or `pem`".to_owned()).into()),
    };
    if entry.apps.is_empty() {
        return Err(invalid(span, "`apps` is empty: the key may sign nothing".to_owned()).into());
    }
    let apps = entry.apps.iter().map(|pattern| {
        AppPattern::parse(pattern.get_ref()).ok_or_else(|| {
            invalid(
                pattern.span(),
                "an app is a name such as `ledger`, or a beginning such as `team-*`".to_owned(),
            )
        })
    });
    Ok(TrustedKey { key, apps: apps.collect::<Result<_, _>>()? })
}

/// A name, or the beginning of names.
#[derive(Debug, Clone)]
enum AppPattern {
    Name(AppName),
    Prefix(String),
}

impl AppPattern {
    fn parse(text: &str) -> Option<Self> {
        let Some(prefix) = text.strip_suffix('*') else { return text.parse().ok().map(Self::Name) };
        let valid = prefix.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        valid.then(|| Self::Prefix(prefix.to_owned()))
    }

    fn matches(&self, app: &AppName) -> bool {
        match self {
            Self::Name(name) => name == app,
            Self::Prefix(prefix) => app.as_str().starts_with(prefix),
        }
    }
}
