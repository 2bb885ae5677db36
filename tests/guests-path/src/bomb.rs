//! A component that takes the compiler far longer than it takes to make.

use wasm_encoder::{
    CodeSection, Component, ComponentExportKind, ComponentExportSection, ComponentInstanceSection, Function,
    FunctionSection, Module, ModuleSection, TypeSection, ValType,
};

/// Local variables of each function: more than a processor has registers.
const LOCALS: u32 = 500;

/// A valid component that looks as if it answered requests, with so many functions of so many steps each. Time
/// grows with both, memory with the steps; 3,000,000 steps take minutes.
#[must_use]
pub fn compile_bomb(functions: u32, steps: u32) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I64], [ValType::I64]);
    let mut declared = FunctionSection::new();
    let mut code = CodeSection::new();
    for function in 0..functions {
        declared.function(0);
        let mut body = Function::new([(LOCALS, ValType::I64)]);
        for step in 0..steps {
            let (from, to) = (step % LOCALS, step * 7 % LOCALS);
            body.instructions().local_get(from).i64_const(i64::from(function ^ step)).i64_mul().local_set(to);
        }
        body.instructions().local_get(1).end();
        code.function(&body);
    }
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&code);
    let mut instances = ComponentInstanceSection::new();
    instances.export_items(Vec::<(&str, ComponentExportKind, u32)>::new());
    let mut exports = ComponentExportSection::new();
    exports.export("wasi:http/incoming-handler@0.2.0", ComponentExportKind::Instance, 0, None);
    let mut component = Component::new();
    component.section(&ModuleSection(&module)).section(&instances).section(&exports);
    component.finish()
}
