//! What must stand in no file of any kind: where someone's machine keeps things, and from where it downloads.

use crate::checkout::TextFile;
use crate::finding::Finding;

/// Folders of a particular machine. In two parts, so that this file does not break its own rule.
const MACHINE_FOLDERS: [(&str, &str); 2] = [("/wo", "rk/"), ("/ro", "ot/")];
/// Settings that name a package registry; each tool knows its own default.
const REGISTRY_SETTINGS: [(&str, &str); 5] = [
    ("sparse", "+http"),
    ("replace", "-with"),
    ("--index", "-url"),
    ("--reg", "istry http"),
    ("npm_config_", "registry"),
];
/// The one source that `Cargo.lock` may name.
const CARGO_SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// The one host that `package-lock.json` may name.
const NPM_SOURCE: &str = "https://registry.npmjs.org/";

/// No absolute path of the machine on which something was written.
#[must_use]
pub fn names_no_machine_folder(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.lines() {
        for folder in MACHINE_FOLDERS.map(|(a, b)| format!("{a}{b}")) {
            let is_absolute =
                |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.}/*".contains(c));
            if line.match_indices(&folder).any(|(at, _)| is_absolute(at)) {
                let what = format!("`{folder}` is a folder of one machine");
                findings.push(Finding::new(
                    &file.path,
                    number,
                    what,
                    "use a path relative to the file or to a given folder",
                ));
            }
        }
    }
    findings
}

/// Packages come from where each tool takes them by default.
#[must_use]
pub fn names_no_registry(file: &TextFile) -> Vec<Finding> {
    let remedy = "leave the choice to the machine's own settings and make the file again";
    let mut findings = Vec::new();
    for (number, line) in file.lines() {
        let trimmed = line.trim_start();
        if file.path.ends_with("Cargo.lock") {
            let source = trimmed.strip_prefix("source = \"").map(|rest| rest.trim_end_matches('"'));
            if let Some(source) = source.filter(|source| *source != CARGO_SOURCE) {
                findings.push(Finding::new(
                    &file.path,
                    number,
                    format!("`{source}` is not crates.io"),
                    remedy,
                ));
            }
        } else if file.path.ends_with("package-lock.json") {
            let source = trimmed.strip_prefix("\"resolved\": \"");
            if source.is_some_and(|source| !source.starts_with(NPM_SOURCE)) {
                findings.push(Finding::new(
                    &file.path,
                    number,
                    "a package does not come from npmjs.org",
                    remedy,
                ));
            }
        } else {
            for setting in REGISTRY_SETTINGS.map(|(a, b)| format!("{a}{b}")) {
                if line.contains(&setting) {
                    let what = format!("`{setting}` chooses a package registry");
                    findings.push(Finding::new(&file.path, number, what, remedy));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_folder_of_one_machine_is_found_and_a_relative_path_is_not() {
        let folder = MACHINE_FOLDERS.map(|(a, b)| format!("{a}{b}"))[0].clone();
        let text = format!("cd {folder}main\n{folder}x\n$dest{folder}src\n\"{folder}\"\n");
        assert_eq!(lines(&names_no_machine_folder(&TextFile::example("a", &text))), [1, 2, 4]);
    }

    #[test]
    fn a_lock_file_that_names_another_registry_is_found() {
        let text =
            format!("source = \"{CARGO_SOURCE}\"\nsource = \"registry+https://mirror.example/index\"\n");
        assert_eq!(lines(&names_no_registry(&TextFile::example("x/Cargo.lock", &text))), [2]);
        let text = format!("\"resolved\": \"{NPM_SOURCE}a\"\n\"resolved\": \"http://mirror.example/a\"\n");
        assert_eq!(lines(&names_no_registry(&TextFile::example("package-lock.json", &text))), [2]);
    }

    #[test]
    fn a_setting_that_chooses_a_registry_is_found() {
        let (a, b) = REGISTRY_SETTINGS[2];
        let text = format!("pip install x\npip install {a}{b} http://mirror.example x\n");
        assert_eq!(lines(&names_no_registry(&TextFile::example("demo", &text))), [2]);
    }
}
