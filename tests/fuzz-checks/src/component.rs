//! Components, as they are looked at before anything compiles them: the interface is read the same by all
//! who ask.

use hvm_appimage::{check_component, imports_of, required_capabilities};
use hvm_types::Capability;

pub(crate) fn check(input: &[u8]) {
    let imports = imports_of(input);
    let required = required_capabilities(input);
    let with_everything = check_component(input, &Capability::ALL);
    let Ok(imports) = imports else {
        assert!(required.is_err() && with_everything.is_err(), "what is no component was accepted");
        return;
    };
    if let Ok(required) = &required {
        let named = imports.iter().filter_map(|import| Capability::of_import(import));
        assert_eq!(*required, named.collect(), "{imports:?}");
    }
    if with_everything.is_ok() {
        let required = required.expect("a component was accepted that imports what nobody offers");
        let exactly: Vec<_> = required.into_iter().collect();
        check_component(input, &exactly).expect("what is required is enough");
        for missing in &exactly {
            let others: Vec<_> = exactly.iter().copied().filter(|other| other != missing).collect();
            assert!(check_component(input, &others).is_err(), "{missing} was not asked for and is there");
        }
    }
}
