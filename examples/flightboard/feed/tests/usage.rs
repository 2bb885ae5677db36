//! What the feed says when it can't do its work.

use std::process::Command;

#[test]
fn a_file_that_is_missing_or_no_flights_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let wrong = dir.path().join("wrong.json");
    std::fs::write(&wrong, "{}").expect("a file");
    for file in [dir.path().join("missing.json"), wrong] {
        let feed = Command::new(env!("CARGO_BIN_EXE_flightboard-feed")).arg("send").arg(&file).output();
        let feed = feed.expect("the feed can be started");
        assert_eq!(feed.status.code(), Some(1));
        let said = String::from_utf8_lossy(&feed.stderr).into_owned();
        assert!(said.contains(&file.display().to_string()), "{said}");
    }
}
