//! Documents as bytes: one byte for the version of the form, then JSON. JSON because specs are written and
//! read by their own rules (`deny_unknown_fields`, units as text), and because a person may have to look.

use serde::Serialize;
use serde::de::DeserializeOwned;

const VERSION: u8 = 1;

/// A stored document that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("read document `{key}`: {reason}; restore the data directory from a copy")]
pub(crate) struct DocumentError {
    /// Its key.
    pub(crate) key: String,
    /// What is wrong with it.
    pub(crate) reason: String,
}

pub(crate) fn encode<T: Serialize>(document: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, document).expect("documents have string keys and finite numbers");
    bytes
}

pub(crate) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, DocumentError> {
    let error = |reason: String| DocumentError { key: key.to_owned(), reason };
    match bytes.split_first() {
        Some((&VERSION, json)) => {
            serde_json::from_slice(json).map_err(|reason| error(format!("it is damaged ({reason})")))
        }
        Some((version, _)) => Err(error(format!(
            "it has version {version}, and this program reads {VERSION}: a newer program wrote it"
        ))),
        None => Err(error("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_another_version_is_refused_by_its_key() {
        let bytes = encode(&vec![1, 2]);
        assert_eq!(decode::<Vec<u32>>("k", &bytes).expect("the same version"), [1, 2]);
        for bad in [&[][..], &[2, b'1'], &[VERSION, b'{']] {
            let error = decode::<u32>("hosts/a/spec", bad).expect_err("not readable").to_string();
            assert!(error.contains("hosts/a/spec"), "{error}");
        }
    }
}
