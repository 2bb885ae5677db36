//! A tar writer and reader for tests, apart from the one under test: it writes what it is told, however wrong.

use std::collections::BTreeMap;

use serde_json::Value;

/// One entry as it will stand in the file.
#[derive(Debug, Clone)]
pub(crate) struct RawEntry {
    pub(crate) name: String,
    pub(crate) kind: u8,
    /// What the header says; the content may differ.
    pub(crate) size: u64,
    pub(crate) content: Vec<u8>,
}

impl RawEntry {
    pub(crate) fn file(name: &str, content: &[u8]) -> Self {
        let size = content.len() as u64;
        Self { name: name.to_owned(), kind: b'0', size, content: content.to_vec() }
    }

    fn append_to(&self, out: &mut Vec<u8>) {
        let mut header = [0_u8; 512];
        header[..self.name.len()].copy_from_slice(self.name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", self.size).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = self.kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[329..336].copy_from_slice(b"0000000");
        header[337..344].copy_from_slice(b"0000000");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
}

/// The bytes of a tar file with these entries.
pub(crate) fn tar(entries: &[RawEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    entries.iter().for_each(|entry| entry.append_to(&mut out));
    out.resize(out.len() + 1024, 0);
    out
}

/// The entries of a tar file that is right.
pub(crate) fn entries(tar: &[u8]) -> Vec<RawEntry> {
    let mut entries = Vec::new();
    let mut at = 0;
    while tar[at] != 0 {
        let text = |range: std::ops::Range<usize>| {
            let field = &tar[at + range.start..at + range.end];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8(field[..end].to_vec()).expect("a header in ASCII")
        };
        let size = usize::from_str_radix(&text(124..136), 8).expect("an octal size");
        entries.push(RawEntry::file(&text(0..100), &tar[at + 512..at + 512 + size]));
        at += 512 + size.next_multiple_of(512);
    }
    entries
}

/// A layout that can be changed at will and written again.
pub(crate) struct Layout {
    pub(crate) index: Value,
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
}

impl Layout {
    pub(crate) fn of(image: &[u8]) -> Self {
        let mut layout = Self { index: Value::Null, blobs: BTreeMap::new() };
        for entry in entries(image) {
            match entry.name.strip_prefix("blobs/sha256/") {
                Some(hex) => drop(layout.blobs.insert(hex.to_owned(), entry.content)),
                None if entry.name == "index.json" => {
                    layout.index = serde_json::from_slice(&entry.content).expect("our index");
                }
                None => assert_eq!(entry.name, "oci-layout"),
            }
        }
        layout
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let index = serde_json::to_vec(&self.index).expect("JSON");
        let mut entries = vec![
            RawEntry::file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            RawEntry::file("index.json", &index),
        ];
        for (hex, content) in &self.blobs {
            entries.push(RawEntry::file(&format!("blobs/sha256/{hex}"), content));
        }
        tar(&entries)
    }

    /// The blob that a descriptor names.
    pub(crate) fn blob(&self, descriptor: &Value) -> &[u8] {
        &self.blobs[&hex_of(descriptor)]
    }

    /// The JSON blob that a descriptor names.
    pub(crate) fn json(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(self.blob(descriptor)).expect("a JSON blob")
    }

    /// Replaces the blob that a descriptor names and makes the descriptor fit.
    pub(crate) fn replace(&mut self, descriptor: &mut Value, content: &[u8]) {
        self.blobs.remove(&hex_of(descriptor));
        let hex = hvm_types::Digest::of(content).to_hex();
        descriptor["digest"] = format!("sha256:{hex}").into();
        descriptor["size"] = content.len().into();
        self.blobs.insert(hex, content.to_vec());
    }

    /// Changes the image's manifest and makes the index fit.
    pub(crate) fn change_manifest(&mut self, change: impl FnOnce(&mut Self, &mut Value)) {
        let mut descriptor = self.index["manifests"][0].clone();
        let mut manifest = self.json(&descriptor);
        change(self, &mut manifest);
        self.replace(&mut descriptor, manifest.to_string().as_bytes());
        self.index["manifests"][0] = descriptor;
    }

    /// Changes the image's config and makes manifest and index fit.
    pub(crate) fn change_config(&mut self, change: impl FnOnce(&mut Value)) {
        self.change_manifest(|layout, manifest| {
            let mut config = layout.json(&manifest["config"]);
            change(&mut config);
            layout.replace(&mut manifest["config"], config.to_string().as_bytes());
        });
    }

    /// Changes the bundle of the n-th signature and makes its manifest and the index fit.
    pub(crate) fn change_bundle(&mut self, signature: usize, change: impl FnOnce(&mut Value)) {
        let mut descriptor = self.index["manifests"][signature + 1].clone();
        let mut manifest = self.json(&descriptor);
        let mut bundle = self.json(&manifest["layers"][0]);
        change(&mut bundle);
        self.replace(&mut manifest["layers"][0], bundle.to_string().as_bytes());
        self.replace(&mut descriptor, manifest.to_string().as_bytes());
        self.index["manifests"][signature + 1] = descriptor;
    }

    /// The bundle of the n-th signature.
    pub(crate) fn bundle(&self, signature: usize) -> Value {
        let manifest = self.json(&self.index["manifests"][signature + 1]);
        self.json(&manifest["layers"][0])
    }
}

fn hex_of(descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().expect("a digest");
    digest.strip_prefix("sha256:").expect("a SHA-256 digest").to_owned()
}
