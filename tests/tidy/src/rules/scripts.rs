//! Shell scripts: they can be started, stop at the first error, and say what they are for.

use crate::checkout::TextFile;
use crate::finding::Finding;

/// The interpreter line of every shell script.
const SHELL: &str = "#!/usr/bin/env bash";
/// Stop at the first error, at an unset variable, and at an error inside a pipe.
const STRICT: [&str; 2] = ["set -euo pipefail", "set -Eeuo pipefail"];

/// A file with an interpreter line is a script and keeps to the rules for scripts.
#[must_use]
pub fn is_a_sound_script(file: &TextFile) -> Vec<Finding> {
    let Some(first) = file.text.lines().next().filter(|line| line.starts_with("#!/")) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let mut report = |line: usize, what: &str, remedy: &'static str| {
        findings.push(Finding::new(&file.path, line, what, remedy));
    };
    if !file.executable {
        report(1, "the script can't be executed", "chmod +x");
    }
    if first.contains("sh") {
        if first != SHELL {
            report(1, "another shell than the other scripts", "begin with `#!/usr/bin/env bash`");
        }
        if !file.text.lines().nth(1).is_some_and(|line| line.starts_with("# ")) {
            report(2, "the script does not say what it is for", "say it in a comment on the second line");
        }
        if !file.lines().any(|(_, line)| STRICT.contains(&line)) {
            report(1, "the script goes on after an error", "add `set -euo pipefail`");
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_breaks_every_rule_is_found_for_each() {
        let findings = is_a_sound_script(&TextFile::example("a", "#!/bin/sh\nrm x\n"));
        assert_eq!(findings.len(), 4, "{findings:?}");
    }

    #[test]
    fn a_sound_script_and_a_file_that_is_none_pass() {
        let mut file = TextFile::example("a", "#!/usr/bin/env bash\n# Does it.\nset -euo pipefail\n");
        file.executable = true;
        assert!(is_a_sound_script(&file).is_empty());
        assert!(is_a_sound_script(&TextFile::example("a.rs", "#![warn(x)]\n")).is_empty());
    }
}
