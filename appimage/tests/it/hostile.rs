//! Files that somebody made to do harm.

use hvm_appimage::{
    MAX_CONFIG_BYTES, MAX_CONTENT_BYTES, MAX_CONTENTS, MAX_INDEX_BYTES, MAX_SIGNATURES, ReadError, TarSource,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::images::{check, p256, signed, unsigned};
use crate::raw_tar::{Layout, RawEntry, entries, tar};

fn refusal(image: &[u8]) -> ReadError {
    check(image).expect_err("a hostile image was taken")
}

/// The image with one more entry at its end.
fn with(entry: RawEntry) -> Vec<u8> {
    let mut entries = entries(&unsigned());
    entries.push(entry);
    tar(&entries)
}

#[test]
fn the_raw_writer_writes_what_the_crate_writes() {
    let image = unsigned();
    assert_eq!(tar(&entries(&image)), image);
    check(&Layout::of(&image).write()).expect("a layout written again is right");
}

#[test]
fn an_entry_with_any_other_name_is_refused() {
    let hex = "0123456789abcdef".repeat(4);
    for name in [
        "../../etc/cron.d/evil".to_owned(),
        "/etc/passwd".to_owned(),
        "evil".to_owned(),
        "./index.json".to_owned(),
        "blobs/sha256/../../../evil".to_owned(),
        format!("blobs/sha256/{hex}/"),
        format!("blobs/sha256/{}", hex.to_uppercase()),
        format!("blobs/sha256/{}", &hex[1..]),
        format!("blobs/sha512/{hex}"),
        format!("blobs//sha256/{hex}"),
        String::new(),
        "\u{1b}[2Jindex.json".to_owned(),
    ] {
        let error = refusal(&with(RawEntry::file(&name, b"x")));
        assert!(matches!(error, ReadError::ForbiddenEntry { .. }), "{name:?}: {error}");
        assert!(!error.to_string().contains('\u{1b}'), "a terminal escape came through");
    }
}

#[test]
fn only_regular_files_are_taken() {
    // Hard link, symbolic link, devices, directory, pipe, pax and GNU extensions, and the old regular file.
    for kind in *b"123456gxLKVS7\0" {
        let mut entry = RawEntry::file(&format!("blobs/sha256/{}", "0".repeat(64)), b"x");
        entry.kind = kind;
        let error = refusal(&with(entry));
        assert!(matches!(error, ReadError::ForbiddenEntry { .. }), "kind {kind}: {error}");
    }
}

#[test]
fn an_entry_that_stands_there_twice_is_refused() {
    for entry in entries(&unsigned()) {
        let error = refusal(&with(entry.clone()));
        assert!(matches!(&error, ReadError::DuplicateEntry { name } if *name == entry.name), "{error}");
    }
}

#[test]
fn a_header_that_promises_too_much_is_refused_before_anything_is_read() {
    let blob = format!("blobs/sha256/{}", "0".repeat(64));
    let cases = [
        ("index.json", MAX_INDEX_BYTES + 1),
        ("oci-layout", 4097),
        (&*blob, MAX_CONTENT_BYTES + 1),
        (&*blob, (1 << 33) - 1),
    ];
    for (name, size) in cases {
        let mut entry = RawEntry::file(name, b"x");
        entry.size = size;
        let error = TarSource::from_bytes(tar(&[entry])).expect_err("too large");
        assert!(matches!(error, ReadError::TooLarge { found, .. } if found == size), "{error}");
    }
    let mut entry = RawEntry::file(&blob, b"x");
    entry.size = MAX_CONTENT_BYTES;
    let error = TarSource::from_bytes(tar(&[entry])).expect_err("the file is not that long");
    assert!(matches!(error, ReadError::Truncated { .. }), "{error}");
}

#[test]
fn a_size_in_another_encoding_is_refused() {
    let mut file = tar(&[RawEntry::file("index.json", b"{}")]);
    // GNU's base-256 form, by which sizes beyond 8 GiB are said.
    file[124] = 0x80;
    let error = TarSource::from_bytes(file).expect_err("another encoding");
    assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
}

#[test]
fn more_entries_than_an_image_may_have_are_refused() {
    let many: Vec<_> = (0..MAX_CONTENTS + 100)
        .map(|number| RawEntry::file(&format!("blobs/sha256/{number:064x}"), b""))
        .collect();
    let error = TarSource::from_bytes(tar(&many)).expect_err("too many entries");
    assert!(error.to_string().starts_with("the number of entries is too large"), "{error}");
}

#[test]
fn nothing_may_stand_behind_the_end_or_in_the_padding() {
    let image = unsigned();
    let mut longer = image.clone();
    longer.extend_from_slice(&[0; 512]);
    assert!(matches!(refusal(&longer), ReadError::Damaged { .. }));
    let mut hidden = image;
    // oci-layout's content ends at byte 542; its padding at 1024.
    hidden[1000] = b'x';
    assert!(matches!(refusal(&hidden), ReadError::Damaged { offset: 542, .. }));
}

#[test]
fn a_file_without_its_first_entries_is_no_appimage() {
    let all = entries(&unsigned());
    for missing in ["oci-layout", "index.json"] {
        let rest: Vec<_> = all.iter().filter(|entry| entry.name != missing).cloned().collect();
        let error = refusal(&tar(&rest));
        assert_eq!(error.to_string(), format!("this is not an AppImage: it has no `{missing}`"));
    }
    for other in [&b"PK\x03\x04 a zip file"[..], &[0x7f; 2000]] {
        let error = refusal(&other.repeat(100));
        assert!(matches!(error, ReadError::NotAnAppImage { .. }), "{error}");
    }
}

#[test]
fn json_that_nests_too_deep_is_refused_wherever_it_stands() {
    let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let mut index = Layout::of(&unsigned());
    index.index["annotations"] = deep(70);
    let mut manifest = Layout::of(&unsigned());
    manifest.change_manifest(|_, manifest| manifest["annotations"] = deep(70));
    let mut config = Layout::of(&unsigned());
    config.change_config(|config| config["packages"] = deep(70));
    for layout in [index, manifest, config] {
        let error = refusal(&layout.write());
        assert!(error.to_string().contains("more than 64 levels"), "{error}");
    }
}

#[test]
fn a_config_beyond_its_limit_is_refused_before_it_is_parsed() {
    let mut layout = Layout::of(&unsigned());
    layout.change_manifest(|layout, manifest| {
        let large = vec![b' '; usize::try_from(MAX_CONFIG_BYTES).expect("one mebibyte") + 1];
        layout.replace(&mut manifest["config"], &large);
    });
    let error = refusal(&layout.write());
    assert!(error.to_string().starts_with("the config is too large"), "{error}");
}

/// Changes to a config that is otherwise right, and what each is refused with.
#[test]
fn a_config_that_does_not_fit_its_manifest_is_refused() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 9] = [
        (|c| c["surprise"] = json!(1), "unknown field `surprise`"),
        (|c| c["packages"] = json!({}), "it has no package"),
        (|c| c["state_schema"] = json!(0), "state_schema is 0"),
        (|c| c["migrates_from"] = json!(1), "migrates_from is 1"),
        (|c| c["app"] = json!("../evil"), "is not valid"),
        (
            |c| c["packages"]["web"]["component"] = json!(format!("sha256:{}", "0".repeat(64))),
            "does not hold the component",
        ),
        (|c| c["packages"]["web"]["capabilities"] = json!(["keyvalue", "keyvalue"]), "not sorted, each once"),
        (|c| c["packages"]["web"]["files"] = json!({}), "no package uses blob"),
        (
            |c| c["packages"]["web"]["files"]["index.html"]["size"] = json!(1),
            "does not hold file `index.html`",
        ),
    ];
    for (change, expected) in cases {
        let mut layout = Layout::of(&unsigned());
        layout.change_config(change);
        let error = refusal(&layout.write());
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_static_file_cannot_be_put_outside_its_directory() {
    for path in ["../up", "/root", "a//b", "a/./b", "a/..", "", "c:\\x", "a\nb", &"x".repeat(1025)] {
        let mut layout = Layout::of(&unsigned());
        layout.change_config(|config| {
            let files = config["packages"]["web"]["files"].as_object_mut().expect("it has files");
            let file = files.remove("index.html").expect("it has this file");
            files.insert(path.to_owned(), file);
        });
        let error = refusal(&layout.write());
        assert!(error.to_string().contains("is not allowed"), "{path:?}: {error}");
    }
}

#[test]
fn a_manifest_of_another_kind_is_refused() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 7] = [
        (|m| m["artifactType"] = json!("application/x"), "its artifactType is"),
        (|m| m["config"]["mediaType"] = json!("application/x"), "its config has the type"),
        (|m| m["layers"][0]["mediaType"] = json!("application/x"), "it holds a layer of type"),
        (|m| m["layers"][1] = m["layers"][0].clone(), "twice"),
        (|m| m["layers"][0]["size"] = json!(u64::MAX), "is too large"),
        (|m| m["schemaVersion"] = json!(1), "schemaVersion"),
        (|m| m["subject"] = m["config"].clone(), "it has a subject"),
    ];
    for (change, expected) in cases {
        let mut layout = Layout::of(&unsigned());
        layout.change_manifest(|_, manifest| change(manifest));
        let error = refusal(&layout.write());
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn an_index_must_name_one_image_and_nothing_unknown() {
    let mut two = Layout::of(&unsigned());
    let image = two.index["manifests"][0].clone();
    two.index["manifests"].as_array_mut().expect("an array").push(image);
    let error = refusal(&two.write());
    assert!(error.to_string().contains("it names 2 images"), "{error}");

    let mut none = Layout::of(&unsigned());
    none.index["manifests"] = json!([]);
    let error = refusal(&none.write());
    assert!(error.to_string().contains("it names 0 images"), "{error}");

    let mut unknown = Layout::of(&unsigned());
    unknown.index["manifests"][0]["artifactType"] = json!("application/x");
    let error = refusal(&unknown.write());
    assert!(error.to_string().contains("`application/x`"), "{error}");

    let mut many = Layout::of(&signed(&unsigned(), &[&p256()]));
    let signature = many.index["manifests"][1].clone();
    many.index["manifests"].as_array_mut().expect("an array").extend(vec![signature; MAX_SIGNATURES]);
    let error = refusal(&many.write());
    assert!(error.to_string().starts_with("the number of signatures is too large"), "{error}");
}

#[test]
fn a_blob_that_nothing_names_is_refused() {
    let mut layout = Layout::of(&unsigned());
    let hex = hvm_types::Digest::of(b"stowaway").to_hex();
    layout.blobs.insert(hex.clone(), b"stowaway".to_vec());
    let error = refusal(&layout.write());
    assert_eq!(error.to_string(), format!("blob sha256:{hex} belongs to nothing in the image"));
}

#[test]
fn a_wrong_size_or_content_names_its_blob() {
    let mut layout = Layout::of(&unsigned());
    let manifest = layout.json(&layout.index["manifests"][0].clone());
    let component = manifest["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    let hex = component.strip_prefix("sha256:").expect("a digest").to_owned();
    let content = layout.blobs[&hex].clone();

    layout.blobs.insert(hex.clone(), [&content[..], b"x"].concat());
    let error = refusal(&layout.write());
    assert!(matches!(&error, ReadError::SizeMismatch { digest, .. } if digest.to_string() == component));

    let mut changed = content;
    changed[9] ^= 1;
    layout.blobs.insert(hex, changed);
    let error = refusal(&layout.write());
    assert!(
        matches!(&error, ReadError::DigestMismatch { expected, .. } if expected.to_string() == component)
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(check(&bytes).is_err());
    }

    #[test]
    fn no_change_of_a_part_goes_unseen(
        start in any::<prop::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 1..64),
    ) {
        let mut image = unsigned();
        let original = image.clone();
        let start = start.index(image.len());
        for (at, byte) in bytes.into_iter().enumerate() {
            if let Some(target) = image.get_mut(start + at) {
                *target = byte;
            }
        }
        prop_assert_eq!(check(&image).is_ok(), image == original);
    }

    #[test]
    fn no_json_in_the_index_makes_the_reader_panic(text in "[\\[\\]{}\",:0-9a-z]{0,200}") {
        let index = RawEntry::file("index.json", text.as_bytes());
        let layout = RawEntry::file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        prop_assert!(check(&tar(&[layout, index])).is_err());
    }
}
