//! Deployment files: what is accepted means the same when it is written out and read again, and every mistake
//! is one that can be shown. The first byte chooses the format.

use hvm_types::deployment_file::{Format, MAX_ERRORS, SpecError, change_allowed, locate, parse, validate};

pub(crate) fn check(input: &[u8]) {
    let Some((first, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let format = if first % 2 == 0 { Format::Yaml } else { Format::Json };
    match parse(text, format) {
        Ok(spec) => {
            assert_eq!(validate(&spec), Ok(()), "a file was accepted that the rules refuse");
            assert_eq!(change_allowed(&spec, &spec), [], "a spec is no change of itself");
            let json = serde_json::to_string(&spec).expect("a spec can be written");
            let again = parse(&json, Format::Json).expect("what was written is accepted");
            assert_eq!(again, spec, "a spec changed by being written and read");
            // YAML has characters that it calls unprintable; other JSON is YAML.
            if json.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                let again = parse(&json, Format::Yaml).expect("JSON is YAML");
                assert_eq!(again, spec, "JSON means something else as YAML");
            }
        }
        Err(mut errors) => {
            assert!((1..=MAX_ERRORS).contains(&errors.len()), "{} errors", errors.len());
            errors.iter().for_each(|error| can_be_shown(error, text));
            locate(text, format, &mut errors);
            errors.iter().for_each(|error| can_be_shown(error, text));
        }
    }
}

fn can_be_shown(error: &SpecError, text: &str) {
    let message = error.in_file("deployment.yaml");
    assert!(!message.chars().any(char::is_control), "a terminal would obey {message:?}");
    let Some(place) = &error.place else { return };
    let breaks = text.chars().filter(|c| "\n\r\u{85}\u{2028}\u{2029}".contains(*c)).count();
    let lines = u32::try_from(breaks + 1).expect("few lines");
    assert!((1..=lines).contains(&place.line), "{place} is beyond the {lines} lines: {message}");
    assert!(place.column >= 1 && place.width >= 1, "{place} is nowhere: {message}");
}
