//! From an author's directory to an image.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hvm_appimage::{AppManifest, BuildError, ComponentError, PackError, UnverifiedImage, pack_directory};
use hvm_types::Capability;
use tempfile::TempDir;

use crate::images::component;

const MANIFEST: &str = r#"
[app]
name = "hello"
version = "1.0.0"
state_schema = 3
migrates_from = 2

[[package]]
name = "web"
component = "hello.wasm"
capabilities = ["keyvalue", "config"]
files = "static"

[[package]]
name = "admin"
build = "admin"
"#;

fn write(directory: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().expect("a directory")).expect("a writable directory");
    fs::write(path, content).expect("a writable directory");
}

/// An app's directory, whose files are written in this order.
fn app(names: &[&str]) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    for name in names {
        match *name {
            "appimage.toml" => write(directory.path(), name, MANIFEST),
            "hello.wasm" => write(directory.path(), name, component(&["wasi:keyvalue/store@0.2.0-draft"])),
            "target/appimage/admin.wasm" => write(directory.path(), name, component(&[])),
            file => write(directory.path(), file, format!("content of {file}")),
        }
    }
    directory
}

const FILES: [&str; 6] = [
    "appimage.toml",
    "hello.wasm",
    "target/appimage/admin.wasm",
    "static/a.txt",
    "static/deep/er/b.txt",
    "static/deep/ä.txt",
];

fn pack(directory: &Path) -> Result<Vec<u8>, PackError> {
    let out = TempDir::new().expect("a temporary directory");
    let out = out.path().join("out.aimg");
    pack_directory(directory, &out)?;
    Ok(fs::read(out).expect("it was written"))
}

/// Why the directory's component is refused.
fn component_error(directory: &Path) -> ComponentError {
    match pack(directory).expect_err("a wrong component was packed") {
        PackError::Build(BuildError::Component { source, .. }) => source,
        other => panic!("{other}"),
    }
}

#[test]
fn what_the_manifest_says_is_in_the_image() {
    let directory = app(&FILES);
    let out = directory.path().join("out.aimg");
    let digest = pack_directory(directory.path(), &out).expect("a right app");
    let image = UnverifiedImage::open_file(&out).expect("what we packed");
    assert_eq!(image.manifest_digest(), digest);
    let image = image.without_signature().expect("what we packed");
    assert_eq!((image.config().state_schema, image.config().migrates_from), (3, Some(2)));
    let web = &image.config().packages[&"web".parse().expect("a name")];
    assert_eq!(web.capabilities, [Capability::Keyvalue, Capability::Config]);
    let files: Vec<_> = web.files.keys().map(String::as_str).collect();
    assert_eq!(files, ["a.txt", "deep/er/b.txt", "deep/ä.txt"]);
    let file = image.file(&"web".parse().expect("a name"), "deep/er/b.txt").expect("it was packed");
    assert_eq!(file, b"content of static/deep/er/b.txt");
}

#[test]
fn the_same_input_gives_the_same_bytes_wherever_and_whenever_it_is_packed() {
    let first = app(&FILES);
    let bytes = pack(first.path()).expect("a right app");
    assert_eq!(pack(first.path()).expect("a right app"), bytes);

    let mut reversed = FILES;
    reversed.reverse();
    let second = app(&reversed);
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for name in FILES {
        let file = fs::File::options().write(true).open(second.path().join(name)).expect("it is there");
        file.set_modified(old).expect("a time that can be set");
    }
    assert_eq!(pack(second.path()).expect("a right app"), bytes);

    write(second.path(), "static/a.txt", "other content");
    assert_ne!(pack(second.path()).expect("a right app"), bytes);
}

#[test]
fn a_component_that_asks_for_more_than_its_package_is_refused_by_name() {
    let directory = app(&FILES);
    write(directory.path(), "target/appimage/admin.wasm", component(&["wasi:http/outgoing-handler@0.2.0"]));
    let error = pack(directory.path()).expect_err("admin requests nothing");
    let PackError::Build(BuildError::Component { package, source }) = &error else { panic!("{error}") };
    assert_eq!(package.as_str(), "admin");
    assert!(matches!(source, ComponentError::NotRequested { capability: Capability::OutgoingHttp, .. }));
    let text = source.to_string();
    assert!(
        text.contains("imports wasi:http/outgoing-handler@0.2.0, which needs the capability outgoing-http")
    );
}

#[test]
fn a_core_module_and_an_unknown_import_are_refused() {
    let directory = app(&FILES);
    write(directory.path(), "hello.wasm", wat::parse_str("(module)").expect("a module in text form"));
    assert_eq!(component_error(directory.path()), ComponentError::CoreModule);
    write(directory.path(), "hello.wasm", component(&["example:unknown/thing@1.0.0"]));
    let import = "example:unknown/thing@1.0.0".to_owned();
    assert_eq!(component_error(directory.path()), ComponentError::UnknownImport { import });
}

#[test]
fn a_package_that_is_not_built_says_what_to_do() {
    let directory = app(&FILES);
    fs::remove_file(directory.path().join("target/appimage/admin.wasm")).expect("it was there");
    let error = pack(directory.path()).expect_err("admin is not built");
    assert!(error.to_string().starts_with("package admin is not built"), "{error}");
    assert!(error.to_string().ends_with("run `appimage-tool build` first"), "{error}");
}

#[test]
fn a_package_that_changed_since_it_was_built_is_refused_until_it_is_built_again() {
    let directory = app(&FILES);
    let component = directory.path().join("target/appimage/admin.wasm");
    let file = fs::File::options().write(true).open(component).expect("it was written");
    let built = SystemTime::now() - Duration::from_secs(100);
    let set = |time| file.set_modified(time).expect("a time that can be set");
    set(built);
    pack(directory.path()).expect("a crate without sources has not changed");
    write(directory.path(), "admin/notes.md", "no source");
    pack(directory.path()).expect("what is no source does not count");

    for source in ["Cargo.toml", "src/deep/er/lib.rs"] {
        write(directory.path(), &format!("admin/{source}"), "changed");
        let error = pack(directory.path()).expect_err("an old component was packed");
        let PackError::Stale { source_file, .. } = &error else { panic!("{error}") };
        assert!(source_file.ends_with(source), "{error}");
        assert!(error.to_string().ends_with("run `appimage-tool build` first"), "{error}");
        set(SystemTime::now() + Duration::from_secs(100));
        pack(directory.path()).expect("it was built again");
        set(built);
        fs::remove_file(source_file).expect("it was written");
    }
}

#[test]
fn links_among_static_files_are_refused() {
    let directory = app(&FILES);
    let link = directory.path().join("static/link");
    std::os::unix::fs::symlink("/etc/passwd", &link).expect("links are possible here");
    let error = pack(directory.path()).expect_err("a link");
    assert!(error.to_string().contains("link is neither a file nor a directory"), "{error}");
}

#[test]
fn an_image_that_cannot_be_packed_leaves_no_file() {
    let directory = app(&FILES[..2]);
    let out = TempDir::new().expect("a temporary directory");
    pack_directory(directory.path(), &out.path().join("out.aimg")).expect_err("files are missing");
    assert_eq!(fs::read_dir(out.path()).expect("it is there").count(), 0);
}

#[test]
fn a_wrong_manifest_is_refused_with_line_and_field() {
    let parse = |text: &str| AppManifest::parse(Path::new("appimage.toml"), text);
    parse(MANIFEST).expect("it is right as it stands");
    for (from, to, expected) in [
        ("name = \"hello\"", "name = \"Hello\"", "appimage.toml:3: field `name`: name `Hello` is not valid"),
        ("version = \"1.0.0\"", "version = \"1\"", "appimage.toml:4: field `version`:"),
        ("state_schema = 3", "state_schema = 0", "appimage.toml:5: field `state_schema`:"),
        (
            "migrates_from = 2",
            "migrates_from = 3",
            "appimage.toml:6: field `migrates_from`: a migration begins",
        ),
        (
            "migrates_from = 2",
            "migrates_from = 0",
            "appimage.toml:6: field `migrates_from`: a migration begins",
        ),
        ("[\"keyvalue\", \"config\"]", "[\"config\"]", "appimage.toml:1: `migrates_from` is for state"),
        ("state_schema = 3", "stateschema = 3", "appimage.toml:5: unknown field `stateschema`"),
        (
            "[\"keyvalue\", \"config\"]",
            "[\"sql\"]",
            "appimage.toml:11: field `capabilities`: unknown variant `sql`",
        ),
        ("build = \"admin\"", "build = \"/abs\"", "appimage.toml:16: field `build`:"),
        ("files = \"static\"", "files = \"../static\"", "appimage.toml:12: field `files`:"),
        ("build = \"admin\"", "", "appimage.toml:14: the package needs"),
        ("build = \"admin\"", "build = \"a\"\ncomponent = \"b\"", "appimage.toml:17: a package has either"),
        ("name = \"admin\"", "name = \"web\"", "appimage.toml:15: field `name`: another package"),
        ("[app]", "[app", "appimage.toml:2:"),
    ] {
        assert!(MANIFEST.contains(from), "{from}");
        let error = parse(&MANIFEST.replacen(from, to, 1)).expect_err("a wrong manifest was taken");
        assert!(error.to_string().starts_with(expected), "{expected}: {error}");
    }
    let error = parse("[app]\nname = \"a\"\nversion = \"1.0.0\"").expect_err("no package");
    assert!(error.to_string().contains("the app has no package"), "{error}");
    let error = AppManifest::load(Path::new("/does/not/exist")).expect_err("no manifest");
    assert_eq!(error.to_string(), "there is no appimage.toml in /does/not/exist");
}
