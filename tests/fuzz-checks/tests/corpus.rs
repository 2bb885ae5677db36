//! Every committed input of every check, and that the fuzz targets, their corpora and the checks are the same
//! list. An input that once broke something stays in the corpus and is tried here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fuzz_checks::{CHECKS, check_named};

/// Committed inputs stay small, so that the checkout does.
const MAX_INPUT_BYTES: usize = 64 << 10;

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The files of a folder with their names, and nothing of git's.
fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    paths.map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path)).collect()
}

/// Cut and flipped, a real input is a hostile one.
fn check_with_its_neighbours(check: fn(&[u8]), input: &[u8]) {
    check(input);
    for at in (0..input.len()).step_by(1 + input.len() / 64) {
        check(&input[..at]);
        let mut flipped = input.to_vec();
        flipped[at] ^= 1 << (at % 8);
        check(&flipped);
    }
}

fn corpus_holds_for(name: &str) {
    let check = check_named(name);
    let inputs = files(&fuzz_folder().join("corpus").join(name));
    assert!(!inputs.is_empty(), "{name} has no corpus");
    for (file, path) in inputs {
        let input = fs::read(path).expect("an input can be read");
        assert!(input.len() <= MAX_INPUT_BYTES, "{file} has {} bytes: minimise it", input.len());
        let checked = std::panic::catch_unwind(|| check_with_its_neighbours(check, &input));
        assert!(checked.is_ok(), "{name}/{file}: see above");
    }
}

#[test]
fn components_of_the_corpus_are_read_the_same_by_all() {
    corpus_holds_for("component");
}

#[test]
fn deployment_files_of_the_corpus_read_back() {
    corpus_holds_for("deployment_file");
}

#[test]
fn images_of_the_corpus_read_back() {
    corpus_holds_for("image_documents");
    corpus_holds_for("image_tar");
}

#[test]
fn manifests_of_the_corpus_read_back() {
    corpus_holds_for("manifest");
}

#[test]
fn requests_of_the_corpus_are_routed_as_promised() {
    corpus_holds_for("routing");
}

#[test]
fn statements_of_the_corpus_release_only_their_image() {
    corpus_holds_for("signature");
}

#[test]
fn no_damage_of_the_corpus_is_taken_for_state() {
    corpus_holds_for("state_file");
    corpus_holds_for("state_journal");
    corpus_holds_for("state_records");
}

#[test]
fn what_is_made_interruptible_stays_valid() {
    corpus_holds_for("interruptible");
}

#[test]
fn every_check_has_a_target_and_a_corpus_and_no_other_is_there() {
    let checks: BTreeSet<String> = CHECKS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let corpora = files(&fuzz_folder().join("corpus"));
    assert_eq!(corpora.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>(), checks);

    let targets = files(&fuzz_folder().join("fuzz_targets"));
    let manifest =
        fs::read_to_string(fuzz_folder().join("Cargo.toml")).expect("the fuzz project has a manifest");
    let mut names = BTreeSet::new();
    for (file, path) in targets {
        let name = file.strip_suffix(".rs").expect("targets are Rust files").to_owned();
        let text = fs::read_to_string(path).expect("a target can be read");
        assert!(text.contains(&format!("check_named(\"{name}\")(input)")), "{file} feeds another check");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{file} is not in fuzz/Cargo.toml");
        names.insert(name);
    }
    assert_eq!(names, checks);
}
