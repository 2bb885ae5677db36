//! What the rewritten bytes look like: valid, complete where it matters, and refused with a reason otherwise.

use wasmparser::{Parser, Payload, Validator};

use super::super::InterruptibleError;
use super::{assemble, interruptible};

fn custom_sections(wasm: &[u8]) -> Vec<String> {
    let payloads = Parser::new(0).parse_all(wasm).map(|payload| payload.expect("valid"));
    payloads
        .filter_map(|payload| match payload {
            Payload::CustomSection(section) => Some(section.name().to_owned()),
            _ => None,
        })
        .collect()
}

const NESTED: &str = r#"(component
  (core module $a (func $spin (export "spin") (loop br 0)) (@custom ".debug_line" "places") (@custom "producers" "\00"))
  (component (core module (func $deep (loop br 0))))
  (core instance $i (instantiate $a)))"#;

#[test]
fn every_core_module_at_any_depth_is_rewritten_and_keeps_its_names() {
    let before = assemble(NESTED);
    let after = interruptible(&before).expect("interruptible");
    Validator::new().validate_all(&after).expect("valid");
    let looks = |wasm: &[u8]| {
        let payloads = Parser::new(0).parse_all(wasm).map(|payload| payload.expect("valid"));
        payloads.filter(|payload| matches!(payload, Payload::GlobalSection(_))).count()
    };
    assert_eq!((looks(&before), looks(&after)), (0, 2));
    let names = custom_sections(&after);
    assert!(names.iter().filter(|name| *name == "name").count() >= 2, "{names:?}");
    assert!(
        names.contains(&"producers".to_owned()) && !names.contains(&".debug_line".to_owned()),
        "{names:?}"
    );
}

#[test]
fn what_neither_loops_nor_calls_stays_as_it_is() {
    let wasm = assemble("(component (core module (func (export \"one\") (result i32) (i32.const 1))))");
    assert_eq!(interruptible(&wasm).expect("interruptible"), wasm);
}

#[test]
fn code_that_refers_to_what_would_be_appended_is_refused() {
    // The module has no global, no second function and no table; the rewritten one has them.
    for body in ["(global.set 0 (i32.const 1))", "(call 1)", "(drop (table.size 0))"] {
        let text = format!("(module (func (export \"f\") {body} (loop br 0)))");
        let error = interruptible(&assemble(&text)).expect_err(body);
        assert!(matches!(error, InterruptibleError::Invalid { .. }), "{error}");
    }
}

#[test]
fn damaged_bytes_are_refused_and_never_crash() {
    let wasm = assemble(NESTED);
    for length in 0..wasm.len() {
        // A component may end after any of its sections.
        if let Ok(rewritten) = interruptible(&wasm[..length]) {
            Validator::new().validate_all(&rewritten).expect("what is taken stays valid");
        }
    }
    for place in 0..wasm.len() {
        for flip in [0x01, 0x10, 0x80, 0xff] {
            let mut damaged = wasm.clone();
            damaged[place] ^= flip;
            if let Ok(rewritten) = interruptible(&damaged) {
                Validator::new().validate_all(&rewritten).expect("what is taken stays valid");
            }
        }
    }
}

#[test]
fn a_function_without_room_for_one_more_variable_is_refused() {
    let text = format!("(module (func (local {}) (loop br 0)))", "i32 ".repeat(50_000));
    let error = interruptible(&assemble(&text)).expect_err("full");
    assert!(matches!(error, InterruptibleError::Full { .. }), "{error}");
}
