//! Two simpler ways to make a module interruptible, for comparison: at every loop head and function entry, a load
//! from a page that the host may protect, or the check of a flag with a call behind it.

use wasm_encoder::reencode::{self, Reencode, utils};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, Function, FunctionSection, GlobalSection, GlobalType, Instruction,
    MemArg, MemorySection, MemoryType, TypeSection, ValType,
};
use wasmparser::Operator;

/// What stands at every loop head and function entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// A load from a memory of one page.
    Load,
    /// A global is read, and a function called where it is not zero.
    Flag,
}

struct Checked {
    check: Check,
    /// The index of what is appended: a memory, or a global and a function.
    appended: u32,
    function: u32,
    types: u32,
}

type Result<T = ()> = std::result::Result<T, reencode::Error>;

/// Rewrites a module that has memories, globals and functions of its own.
pub(crate) fn with(check: Check, wasm: &[u8]) -> Result<Vec<u8>> {
    let mut module = wasm_encoder::Module::new();
    let mut checked = Checked { check, appended: 0, function: 0, types: 0 };
    checked.parse_core_module(&mut module, wasmparser::Parser::new(0), wasm)?;
    Ok(module.finish())
}

impl Checked {
    fn put(&self, body: &mut Function) {
        match self.check {
            Check::Load => {
                body.instruction(&Instruction::I32Const(0));
                let memory = MemArg { offset: 0, align: 0, memory_index: self.appended };
                body.instruction(&Instruction::I32Load8U(memory)).instruction(&Instruction::Drop);
            }
            Check::Flag => {
                body.instruction(&Instruction::GlobalGet(self.appended));
                body.instruction(&Instruction::If(BlockType::Empty));
                body.instruction(&Instruction::Call(self.function)).instruction(&Instruction::End);
            }
        }
    }
}

impl Reencode for Checked {
    type Error = std::convert::Infallible;

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Result {
        utils::parse_type_section(self, types, section)?;
        self.types = types.len();
        types.ty().function([], []);
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result {
        utils::parse_function_section(self, functions, section)?;
        self.function = functions.len();
        functions.function(self.types);
        Ok(())
    }

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: wasmparser::MemorySectionReader<'_>,
    ) -> Result {
        utils::parse_memory_section(self, memories, section)?;
        if self.check == Check::Load {
            self.appended = memories.len();
            let page = MemoryType {
                minimum: 1,
                maximum: Some(1),
                memory64: false,
                shared: false,
                page_size_log2: None,
            };
            memories.memory(page);
        }
        Ok(())
    }

    fn parse_global_section(
        &mut self,
        globals: &mut GlobalSection,
        section: wasmparser::GlobalSectionReader<'_>,
    ) -> Result {
        utils::parse_global_section(self, globals, section)?;
        if self.check == Check::Flag {
            self.appended = globals.len();
            let flag = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
            globals.global(flag, &ConstExpr::i32_const(0));
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Result {
        utils::parse_code_section(self, code, section)?;
        let mut called = Function::new([]);
        if self.check == Check::Flag {
            called.instruction(&Instruction::I32Const(0)).instruction(&Instruction::GlobalSet(self.appended));
        }
        called.instruction(&Instruction::End);
        code.function(&called);
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: wasmparser::FunctionBody<'_>) -> Result {
        let mut out = self.new_function_with_parsed_locals(&body)?;
        self.put(&mut out);
        for operator in body.get_operators_reader()? {
            let operator = operator?;
            let is_loop = matches!(operator, Operator::Loop { .. });
            out.instruction(&self.instruction(operator)?);
            if is_loop {
                self.put(&mut out);
            }
        }
        code.function(&out);
        Ok(())
    }
}
