//! What a core module has, as far as rewriting needs it.

use wasmparser::{
    CompositeInnerType, Element, ElementItems, ElementKind, Export, ExternalKind, FunctionBody, Global,
    Operator, Parser, Payload, TableType, TypeRef, ValType,
};

use super::InterruptibleError;

/// A core module read through once.
#[derive(Default)]
pub(super) struct Survey<'a> {
    /// Of each type, the parameters; of what is no function, none.
    pub(super) parameters: Vec<Vec<ValType>>,
    /// Of each function, imported ones first, its type.
    pub(super) functions: Vec<u32>,
    /// How many of them are imported.
    pub(super) imported_functions: u32,
    /// Of each function, whether something may call it that does not know it: a table, another module, the host.
    pub(super) called_by_unknown: Vec<bool>,
    pub(super) tables: Vec<TableType>,
    /// Of each memory, whether its addresses have 64 bits.
    pub(super) memories: Vec<bool>,
    pub(super) globals: u32,
    pub(super) bodies: Vec<FunctionBody<'a>>,
}

impl<'a> Survey<'a> {
    pub(super) fn of(module: &'a [u8], offset: usize) -> Result<Self, InterruptibleError> {
        let mut survey = Self::default();
        let mut known_to_others = Vec::new();
        for payload in Parser::new(offset as u64).parse_all(module) {
            survey.read(payload?, &mut known_to_others)?;
        }
        survey.called_by_unknown = vec![false; survey.functions.len()];
        for function in known_to_others {
            if let Some(called) = survey.called_by_unknown.get_mut(function as usize) {
                *called = true;
            }
        }
        Ok(survey)
    }

    fn read(&mut self, payload: Payload<'a>, known: &mut Vec<u32>) -> Result<(), InterruptibleError> {
        match payload {
            Payload::TypeSection(groups) => {
                for group in groups {
                    for ty in group?.types() {
                        self.parameters.push(match &ty.composite_type.inner {
                            CompositeInnerType::Func(function) => function.params().to_vec(),
                            _ => Vec::new(),
                        });
                    }
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    self.import(import?.ty);
                }
            }
            Payload::FunctionSection(functions) => {
                for ty in functions {
                    self.functions.push(ty?);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    self.tables.push(table?.ty);
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    self.memories.push(memory?.memory64);
                }
            }
            Payload::GlobalSection(globals) => {
                for global in globals {
                    self.globals += 1;
                    let Global { init_expr, .. } = global?;
                    functions_in(init_expr.get_operators_reader(), known)?;
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    if let Export { kind: ExternalKind::Func, index, .. } = export? {
                        known.push(index);
                    }
                }
            }
            Payload::StartSection { func, .. } => known.push(func),
            Payload::ElementSection(elements) => {
                for element in elements {
                    functions_of(element?, known)?;
                }
            }
            Payload::CodeSectionEntry(body) => self.bodies.push(body),
            _ => {}
        }
        Ok(())
    }

    fn import(&mut self, ty: TypeRef) {
        match ty {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                self.functions.push(ty);
                self.imported_functions += 1;
            }
            TypeRef::Table(table) => self.tables.push(table),
            TypeRef::Memory(memory) => self.memories.push(memory.memory64),
            TypeRef::Global(_) => self.globals += 1,
            TypeRef::Tag(_) => {}
        }
    }

    /// The place of a function among those that the module defines; an imported one has none.
    pub(super) fn defined(&self, function: u32) -> Option<usize> {
        function.checked_sub(self.imported_functions).map(|defined| defined as usize)
    }
}

fn functions_of(element: Element<'_>, known: &mut Vec<u32>) -> Result<(), InterruptibleError> {
    if let ElementKind::Active { offset_expr, .. } = element.kind {
        functions_in(offset_expr.get_operators_reader(), known)?;
    }
    match element.items {
        ElementItems::Functions(functions) => {
            for function in functions {
                known.push(function?);
            }
        }
        ElementItems::Expressions(_, expressions) => {
            for expression in expressions {
                functions_in(expression?.get_operators_reader(), known)?;
            }
        }
    }
    Ok(())
}

fn functions_in(
    operators: wasmparser::OperatorsReader<'_>,
    known: &mut Vec<u32>,
) -> Result<(), InterruptibleError> {
    for operator in operators {
        if let Operator::RefFunc { function_index } = operator? {
            known.push(function_index);
        }
    }
    Ok(())
}

/// A number of things in a module, which has 32 bits.
pub(super) fn count(things: usize) -> Result<u32, InterruptibleError> {
    u32::try_from(things).map_err(|_| InterruptibleError::Full { what: "a module" })
}
