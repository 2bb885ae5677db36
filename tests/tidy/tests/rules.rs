//! Every rule over the whole checkout. A failure names file and line, what is wrong and what to do.

use tidy::{
    Checkout, Finding, RustCode, TextFile, assert_none, crates, documents, rust_shape, rust_words, scripts,
    text,
};

fn checkout() -> Checkout {
    Checkout::read().expect("the checkout can be read")
}

fn check_rust(rule: fn(&RustCode) -> Vec<Finding>) {
    let checkout = checkout();
    let files: Vec<_> = checkout.written_rust().collect();
    assert!(files.len() > 10, "only {} Rust files found: this looks at the wrong folder", files.len());
    assert_none(&files.into_iter().flat_map(|file| rule(&RustCode::new(file))).collect::<Vec<_>>());
}

fn check_every_file(rule: fn(&TextFile) -> Vec<Finding>) {
    assert_none(&checkout().files.iter().flat_map(rule).collect::<Vec<_>>());
}

fn members(checkout: &Checkout) -> Vec<crates::Member> {
    crates::read_members(&checkout.root).expect("cargo can describe the workspace")
}

#[test]
fn every_rust_file_opens_with_what_it_is_for() {
    check_rust(rust_shape::opens_with_its_purpose);
}

#[test]
fn no_rust_file_is_too_long() {
    check_rust(rust_shape::is_not_too_long);
}

#[test]
fn every_function_fits_a_screen() {
    check_rust(rust_shape::functions_fit_a_screen);
}

#[test]
fn crate_roots_only_name_modules() {
    check_rust(rust_shape::crate_roots_only_name_modules);
}

#[test]
fn names_of_types_and_modules_say_something() {
    check_rust(rust_words::names_say_something);
}

#[test]
fn unsafe_stands_in_the_runtime_only() {
    check_rust(rust_words::unsafe_is_only_in_the_runtime);
}

#[test]
fn nothing_is_left_to_be_written_and_no_test_is_off() {
    check_rust(rust_words::nothing_is_left_out);
}

#[test]
fn names_of_tests_are_sentences() {
    check_rust(rust_words::test_names_are_sentences);
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    check_every_file(text::names_no_machine_folder);
}

#[test]
fn no_file_chooses_a_package_registry() {
    check_every_file(text::names_no_registry);
}

#[test]
fn every_script_can_be_started_and_stops_at_an_error() {
    check_every_file(scripts::is_a_sound_script);
}

#[test]
fn links_between_documents_lead_somewhere() {
    assert_none(&documents::links_lead_somewhere(&checkout()));
}

#[test]
fn every_document_can_be_found_from_the_readme() {
    assert_none(&documents::every_document_can_be_found(&checkout()));
}

#[test]
fn crates_use_each_other_as_the_architecture_says() {
    assert_none(&crates::edges_are_those_of_the_architecture(&members(&checkout())));
}

#[test]
fn only_the_runtime_uses_wasmtime() {
    assert_none(&crates::only_the_runtime_uses_wasmtime(&members(&checkout())));
}

#[test]
fn the_scheduler_never_links_wasmtime() {
    let checkout = checkout();
    let lock = checkout.file("Cargo.lock").expect("the workspace has a lock file");
    let findings = crates::the_scheduler_never_links_wasmtime(&members(&checkout), &lock.text);
    assert_none(&findings.expect("the lock file can be read"));
}

#[test]
fn lints_and_versions_are_chosen_in_the_workspace() {
    let checkout = checkout();
    let findings = crates::manifests_follow_the_workspace(&checkout, &members(&checkout));
    assert_none(&findings.expect("every manifest can be read"));
}

#[test]
fn every_dependency_is_used() {
    let checkout = checkout();
    assert_none(&crates::every_dependency_is_used(&checkout, &members(&checkout)));
}
