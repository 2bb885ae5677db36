//! A core module section by section.

use std::borrow::Cow;

use wasm_encoder::{BranchHint, BranchHints, Encode as _, Section as _};
use wasmparser::BinaryReader;

use super::InterruptibleError;
use super::append::Appended;
use super::function::{Function, Rewritten};
use super::order::Order;
use super::survey::{Survey, count};

const HEADER_BYTES: usize = 8;
const CUSTOM: u8 = 0;
const TYPE: u8 = 1;
const FUNCTION: u8 = 3;
const TABLE: u8 = 4;
const GLOBAL: u8 = 6;
const CODE: u8 = 10;
/// The value of a branch hint.
const RARELY_TAKEN: u32 = 0;
/// The sections in the order in which they must stand; custom ones stand anywhere.
const IN_ORDER: [u8; 12] = [TYPE, 2, FUNCTION, TABLE, 5, GLOBAL, 7, 8, 9, 12, CODE, 11];

struct Section<'a> {
    id: u8,
    content: Cow<'a, [u8]>,
}

/// Rewrites a core module that stands so far into the component.
pub(super) fn module(bytes: &[u8], offset: usize) -> Result<Vec<u8>, InterruptibleError> {
    let survey = Survey::of(bytes, offset)?;
    if survey.bodies.is_empty() {
        return Ok(bytes.to_vec());
    }
    let mut appended = Appended::to(&survey)?;
    let functions = functions(&survey, &mut appended)?;
    if functions.iter().all(|function| function.rare.is_empty()) && appended.functions() == Appended::ALWAYS {
        // Nothing counts, so nothing has changed.
        return Ok(bytes.to_vec());
    }
    let mut sections = sections(bytes, offset)?;
    let mut add = |id: u8, number: usize, entries: Vec<u8>| append(&mut sections, id, number, &entries);
    add(TYPE, appended.functions(), encoded(|out| appended.encode_types(out)))?;
    add(FUNCTION, appended.functions(), encoded(|out| appended.encode_type_indices(out)))?;
    if appended.adds_table {
        add(TABLE, 1, encoded(Appended::encode_table))?;
    }
    add(GLOBAL, appended.globals(), encoded(|out| appended.encode_globals(out)))?;
    let code = code(&functions, &appended)?;
    let mut out = bytes.get(..HEADER_BYTES).unwrap_or_default().to_vec();
    for section in sections {
        if section.id == CODE {
            encode_hints(&survey, &functions, &mut out);
            out.push(CODE);
            code.as_slice().encode(&mut out);
        } else {
            out.push(section.id);
            section.content.encode(&mut out);
        }
    }
    Ok(out)
}

fn functions(survey: &Survey<'_>, appended: &mut Appended) -> Result<Vec<Rewritten>, InterruptibleError> {
    let order = Order::of(survey)?;
    let mut uncounted = vec![None; survey.bodies.len()];
    let mut functions: Vec<Option<Rewritten>> = survey.bodies.iter().map(|_| None).collect();
    for defined in order.callees_first {
        let function = Function {
            survey,
            body: &survey.bodies[defined],
            index: survey.imported_functions + count(defined)?,
            cuts: order.cuts[defined],
            uncounted: &uncounted,
        };
        let rewritten = function.rewrite(appended)?;
        uncounted[defined] = rewritten.uncounted;
        functions[defined] = Some(rewritten);
    }
    Ok(functions.into_iter().flatten().collect())
}

fn sections(bytes: &[u8], offset: usize) -> Result<Vec<Section<'_>>, InterruptibleError> {
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let mut reader = BinaryReader::new(body, offset + HEADER_BYTES);
    let mut sections = Vec::new();
    while !reader.eof() {
        let id = reader.read_u8()?;
        let start = reader.read_reader()?.original_position();
        let content = &bytes[start - offset..reader.original_position() - offset];
        if id != CUSTOM || is_kept(content) {
            sections.push(Section { id, content: Cow::Borrowed(content) });
        }
    }
    Ok(sections)
}

/// What tells of places in the code is dropped: they have moved. Names of functions stay.
fn is_kept(custom: &[u8]) -> bool {
    let name = BinaryReader::new(custom, 0).read_string().unwrap_or_default();
    !name.starts_with(".debug_") && !name.starts_with("metadata.code.")
}

/// Appends entries to a section, which is made where it is missing.
fn append(
    sections: &mut Vec<Section<'_>>,
    id: u8,
    number: usize,
    entries: &[u8],
) -> Result<(), InterruptibleError> {
    let number = count(number)?;
    if let Some(section) = sections.iter_mut().find(|section| section.id == id) {
        let mut reader = BinaryReader::new(&section.content, 0);
        let present = reader.read_var_u32()?;
        let mut content = Vec::with_capacity(section.content.len() + entries.len() + 5);
        present.saturating_add(number).encode(&mut content);
        content.extend_from_slice(&section.content[reader.original_position()..]);
        content.extend_from_slice(entries);
        section.content = Cow::Owned(content);
        return Ok(());
    }
    let rank = |id: u8| IN_ORDER.iter().position(|ordered| *ordered == id);
    let place = sections.iter().position(|section| rank(section.id) > rank(id)).unwrap_or(sections.len());
    let mut content = Vec::with_capacity(entries.len() + 5);
    number.encode(&mut content);
    content.extend_from_slice(entries);
    sections.insert(place, Section { id, content: Cow::Owned(content) });
    Ok(())
}

fn code(functions: &[Rewritten], appended: &Appended) -> Result<Vec<u8>, InterruptibleError> {
    let mut code = Vec::new();
    count(functions.len() + appended.functions())?.encode(&mut code);
    for function in functions {
        function.body.as_slice().encode(&mut code);
    }
    appended.encode_bodies(&mut code);
    Ok(code)
}

fn encode_hints(survey: &Survey<'_>, functions: &[Rewritten], out: &mut Vec<u8>) {
    let mut hints = BranchHints::new();
    for (index, function) in (survey.imported_functions..).zip(functions) {
        if !function.rare.is_empty() {
            let of_function = function
                .rare
                .iter()
                .map(|place| BranchHint { branch_func_offset: *place, branch_hint_value: RARELY_TAKEN });
            hints.function_hints(index, of_function.collect::<Vec<_>>());
        }
    }
    hints.append_to(out);
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}
