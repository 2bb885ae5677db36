//! Markdown: links lead somewhere, and a reader who starts at README.md finds every document.

use std::collections::{BTreeSet, VecDeque};

use crate::checkout::{Checkout, TextFile};
use crate::finding::Finding;

/// Where every reader starts.
const START: &str = "README.md";

/// Each relative link names a file or folder that is there.
#[must_use]
pub fn links_lead_somewhere(checkout: &Checkout) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in checkout.ending(".md") {
        for link in links(file) {
            if !checkout.root.join(&link.path).exists() {
                let what = format!("the link to `{}` leads nowhere", link.path);
                findings.push(Finding::new(&file.path, link.line, what, "correct the link or remove it"));
            }
        }
    }
    findings
}

/// Each document at the root and under `docs/` is reached from README.md over links.
#[must_use]
pub fn every_document_can_be_found(checkout: &Checkout) -> Vec<Finding> {
    let mut reached = BTreeSet::from([START.to_owned()]);
    let mut open = VecDeque::from([START.to_owned()]);
    while let Some(path) = open.pop_front() {
        let Some(file) = checkout.file(&path) else {
            continue;
        };
        for link in links(file) {
            let as_folder = format!("{}/README.md", link.path);
            let target = if checkout.file(&as_folder).is_some() { as_folder } else { link.path };
            if target.ends_with(".md") && reached.insert(target.clone()) {
                open.push_back(target);
            }
        }
    }
    checkout
        .ending(".md")
        .filter(|file| file.path.starts_with("docs/") || !file.path.contains('/'))
        .filter(|file| !reached.contains(&file.path))
        .map(|file| {
            Finding::new(
                &file.path,
                1,
                "no document that starts at README.md leads here",
                "link it from docs/README.md",
            )
        })
        .collect()
}

struct Link {
    line: usize,
    /// Relative to the root of the checkout.
    path: String,
}

/// The links of a document to other files, outside code.
fn links(file: &TextFile) -> Vec<Link> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    let mut in_code = false;
    for (line, text) in file.lines() {
        if text.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let prose: String = text.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (_, rest) in prose.match_indices("](").map(|(at, _)| prose.split_at(at + 2)) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or("");
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push(Link { line, path: resolve(folder, target) });
            }
        }
    }
    found
}

/// `target` as seen from `folder`, both below the root.
fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkout(files: &[(&str, &str)]) -> Checkout {
        let files = files.iter().map(|(path, text)| TextFile::example(path, text)).collect();
        Checkout { root: env!("CARGO_MANIFEST_DIR").into(), files }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found_outside_code_only() {
        let text =
            "[a](Cargo.toml) [b](src/gone.rs#x)\n`[c](gone)`\n```\n[d](gone)\n```\n[e](https://a.example/)\n";
        let findings = links_lead_somewhere(&checkout(&[("README.md", text)]));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].what.contains("src/gone.rs"));
    }

    #[test]
    fn a_document_that_no_link_reaches_is_found() {
        let findings = every_document_can_be_found(&checkout(&[
            ("README.md", "[docs](docs)"),
            ("docs/README.md", "[one](decisions/one.md)"),
            ("docs/decisions/one.md", "[up](../../GLOSSARY.md)"),
            ("docs/decisions/two.md", "[one](one.md)"),
            ("GLOSSARY.md", ""),
            ("examples/x/README.md", ""),
        ]));
        let paths: Vec<&str> = findings.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["docs/decisions/two.md"]);
    }

    #[test]
    fn a_link_is_resolved_from_the_folder_of_its_document() {
        assert_eq!(resolve("docs/decisions", "../x.md"), "docs/x.md");
        assert_eq!(resolve("", "./a/b"), "a/b");
    }
}
