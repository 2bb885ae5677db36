//! Every command but `run`: exit codes, what stands on which stream, and the files that are left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use guests_path::Guest;
use serde_json::Value;

use crate::workbench::Workbench;

#[test]
fn a_new_app_is_built_packed_signed_verified_and_inspected() {
    let place = Workbench::new();
    place.done(&["new", "first-app"]);
    let error = place.refused(&["pack", "first-app", "--out", "first.aimg"]);
    assert!(error.contains("run `appimage-tool build` first"), "{error}");
    assert!(error.contains("hint: appimage-tool build first-app"), "{error}");
    assert!(!place.path("first.aimg").exists(), "a refused pack leaves no file");

    let output = place.done(&["build", "first-app"]);
    assert!(output.starts_with("package web: first-app/target/appimage/web.wasm"), "{output}");
    let packed = place.done(&["pack", "first-app", "--out", "first.aimg"]);
    let digest = packed.lines().last().expect("the digest").to_owned();
    place.done(&["keygen", "--out", "author", "--alg", "ed25519"]);
    place.done(&["sign", "first.aimg", "--key", "author"]);
    let verified = place.done(&["verify", "first.aimg", "--trust", "author.pub"]);
    assert!(
        verified.starts_with(&format!("first-app 0.1.0 is trusted\n{digest}\nsigned by key ")),
        "{verified}"
    );

    let report: Value =
        serde_json::from_str(&place.done(&["inspect", "first.aimg", "--json"])).expect("JSON");
    assert_eq!(report["digest"], digest);
    assert_eq!(report["packages"][0]["name"], "web");
    let key = report["claimed_signers"][0].as_str().expect("a key");
    assert!(verified.ends_with(&format!("signed by key {key}\n")), "{verified}");
}

#[test]
fn every_guest_is_packed_with_the_capabilities_that_it_needs_and_not_without() {
    let all = r#"["keyvalue", "config", "logging", "outgoing-http"]"#;
    for guest in Guest::ALL {
        let (capabilities, refusal) = match guest {
            Guest::Hello | Guest::ProbeWasi | Guest::TypedBoth => ("[]", None),
            Guest::Flightboard | Guest::FlightboardNext | Guest::Ledger | Guest::Counter | Guest::Typed => {
                (r#"["keyvalue"]"#, Some("wasi:keyvalue/store@0.2.0-draft"))
            }
            Guest::Probe => (all, Some("needs the capability")),
            Guest::BadImport => (all, Some("which no host offers")),
        };
        let place = Workbench::new();
        let pack = ["pack", "app", "--out", "app.aimg"];
        if guest != Guest::BadImport {
            place.app("app", guest, capabilities);
            place.done(&pack);
            place.done(&["inspect", "app.aimg"]);
        }
        if let Some(refusal) = refusal {
            place.app("app", guest, if guest == Guest::BadImport { all } else { "[]" });
            let error = place.refused(&pack);
            assert!(error.contains(refusal) && error.contains("the component of package web"), "{error}");
        }
    }
}

#[test]
fn keys_are_private_and_never_overwritten() {
    let place = Workbench::new();
    place.done(&["keygen", "--out", "author"]);
    let mode = |name| fs::metadata(place.path(name)).expect("it was made").permissions().mode() & 0o777;
    assert_eq!(mode("author"), 0o600);
    let before = fs::read(place.path("author")).expect("it was made");

    let error = place.refused(&["keygen", "--out", "author"]);
    assert!(error.contains("hint: keys are never overwritten"), "{error}");
    assert_eq!(fs::read(place.path("author")).expect("it is still there"), before);

    fs::remove_file(place.path("author")).expect("it was there");
    place.refused(&["keygen", "--out", "author"]);
    assert!(!place.path("author").exists(), "no private key without its public half");
}

#[test]
fn an_image_that_is_not_right_is_refused_with_the_reason() {
    let place = Workbench::new();
    place.signed_hello();
    let verify = |file: &str, trust: &str| place.refused(&["verify", file, "--trust", trust]);
    place.done(&["keygen", "--out", "other"]);
    let error = verify("hello.aimg", "other.pub");
    assert!(error.contains("hello.aimg: the image is signed by key"), "{error}");

    place.done(&["pack", "hello", "--out", "unsigned.aimg"]);
    let error = verify("unsigned.aimg", "author.pub");
    assert!(error.contains("the image is not signed"), "{error}");
    assert!(error.contains("hint: appimage-tool sign unsigned.aimg --key KEY"), "{error}");

    let image = fs::read(place.path("hello.aimg")).expect("it was packed");
    place.write("cut.aimg", &image[..image.len() / 2]);
    assert!(verify("cut.aimg", "author.pub").contains("cut.aimg: the file is truncated"));
    let mut flipped = image;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    place.write("flipped.aimg", flipped);
    assert!(verify("flipped.aimg", "author.pub").contains("damaged or was changed"));
    place.refused(&["inspect", "flipped.aimg"]);
    place.refused(&["sign", "flipped.aimg", "--key", "author"]);
    place.write("text.aimg", "hello".repeat(500));
    assert!(verify("text.aimg", "author.pub").contains("this is not an AppImage"));
    let error = verify("none.aimg", "author.pub");
    assert!(error.contains("error: cannot read none.aimg: No such file"), "{error}");

    // A private key is no policy, a policy that is wrong trusts nobody, and a public key signs nothing.
    assert!(verify("hello.aimg", "author").contains("cannot use author as a public key"));
    place.write("trust.toml", "[[key]]\nfile = \"author.pub\"\napp = [\"*\"]\n");
    assert!(verify("hello.aimg", "trust.toml").contains("trust.toml:3: unknown field `app`"));
    let error = place.refused(&["sign", "hello.aimg", "--key", "author.pub"]);
    assert!(error.contains("hint: sign with the private key"), "{error}");
}

#[test]
fn a_policy_file_decides_which_version_is_accepted() {
    let place = Workbench::new();
    place.signed_hello();
    let policy = |lowest: &str| {
        let key = "[[key]]\nfile = \"author.pub\"\napps = [\"hel*\"]\n";
        place.write("trust.toml", format!("{key}[lowest]\nhello = \"{lowest}\"\n"));
    };
    policy("1.0.0");
    place.done(&["verify", "hello.aimg", "--trust", "trust.toml"]);
    policy("1.0.1");
    let error = place.refused(&["verify", "hello.aimg", "--trust", "trust.toml"]);
    assert!(error.contains("version 1.0.0 of hello is not accepted"), "{error}");
}

#[test]
fn the_report_for_people_shows_what_stands_in_the_image() {
    let place = Workbench::new();
    place.app("board", Guest::Flightboard, "[\"keyvalue\"]\nfiles = \"static\"");
    place.write("board/static/css/page.css", "body {}");
    place.done(&["pack", "board", "--out", "board.aimg"]);
    let report = place.done(&["inspect", "board.aimg"]);
    for expected in [
        "board 1.0.0\n├ digest        sha256:",
        "├ signatures    none\n",
        "└ package web\n",
        "├ capabilities  keyvalue\n",
        "wasi:keyvalue/store@0.2.0-draft\n",
        "css/page.css (7 B)\n",
    ] {
        assert!(report.contains(expected), "{expected} is missing in:\n{report}");
    }
}

#[test]
fn a_wrong_manifest_is_refused_with_file_line_and_field() {
    let place = Workbench::new();
    place.write("app/appimage.toml", "[app]\nname = \"App\"\nversion = \"1.0.0\"\n");
    for command in [&["pack", "app", "--out", "x.aimg"][..], &["build", "app"]] {
        let error = place.refused(command);
        assert!(error.starts_with("error: app/appimage.toml:2: field `name`: "), "{error}");
    }
    let error = place.refused(&["pack", ".", "--out", "x.aimg"]);
    assert!(error.contains("there is no appimage.toml in ."), "{error}");
}

#[test]
fn a_build_that_fails_says_so_and_leaves_no_component() {
    let place = Workbench::new();
    place.done(&["new", "broken"]);
    place.write("broken/src/lib.rs", "this is no Rust");
    let error = place.refused(&["build", "broken"]);
    assert!(error.contains("error: cannot build broken; the messages above say why"), "{error}");
    assert!(!place.path("broken/target/appimage/web.wasm").exists());
}

#[test]
fn a_directory_that_is_there_is_left_alone() {
    let place = Workbench::new();
    place.write("mine/notes.txt", "mine");
    let error = place.refused(&["new", "mine"]);
    assert!(error.contains("mine is there already"), "{error}");
    assert_eq!(fs::read_dir(place.path("mine")).expect("it is there").count(), 1);
    let error = place.refused(&["new", "../elsewhere"]);
    assert!(error.contains("name `../elsewhere` is not valid"), "{error}");
}

#[test]
fn wrong_usage_is_told_from_a_refusal_and_help_teaches_by_example() {
    let place = Workbench::new();
    for arguments in
        [&["pack"][..], &["fly"], &["keygen", "--out", "k", "--alg", "rsa"], &["verify", "x.aimg"]]
    {
        let output = place.tool(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    assert!(!place.path("k").exists());
    for command in ["new", "build", "pack", "keygen", "sign", "verify", "inspect", "run"] {
        let help = place.done(&[command, "--help"]);
        assert!(
            help.contains(&format!("  appimage-tool {command}")),
            "{command} --help has no example:\n{help}"
        );
    }
}
