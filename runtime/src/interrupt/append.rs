//! What is appended to a core module, at the end of its index spaces: the budget, `tick`, `refill` and the bulk
//! operations that it uses.

use wasm_encoder::{BlockType, ConstExpr, Encode as _, HeapType, InstructionSink, ValType};
use wasmparser::{RefType, ValType as ReadValType};

use super::InterruptibleError;
use super::bulk::Bulk;
use super::price::{ALLOWANCE, BUDGET, TICK_GROWTH};
use super::survey::{Survey, count};

/// A function that is appended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// Gives a new budget and asks the host.
    Tick,
    /// Takes an allowance for loops from the budget, and what the last one was exceeded by.
    Refill,
    /// A bulk operation that is charged for its length.
    Bulk(Bulk),
}

/// What is appended to one module.
pub(super) struct Appended {
    /// The global that holds the budget.
    pub(super) budget: u32,
    /// The table that `tick` asks to grow, and whether its indices have 64 bits.
    table: (u32, bool),
    /// Whether that table is appended too.
    pub(super) adds_table: bool,
    first_function: u32,
    first_type: u32,
    functions: Vec<Added>,
    /// Globals after the budget in which variables are put aside, by their kind. No guest's code runs between that
    /// and taking them up again, so all functions share them.
    aside: Vec<ReadValType>,
}

impl Appended {
    /// How many functions are appended to every module: `tick` and `refill`.
    pub(super) const ALWAYS: usize = 2;

    pub(super) fn to(survey: &Survey<'_>) -> Result<Self, InterruptibleError> {
        let found = survey.tables.iter().position(|table| table.element_type == RefType::FUNCREF);
        let table = match found {
            Some(index) => (count(index)?, survey.tables[index].table64),
            None => (count(survey.tables.len())?, false),
        };
        Ok(Self {
            budget: survey.globals,
            table,
            adds_table: found.is_none(),
            first_function: count(survey.functions.len())?,
            first_type: count(survey.parameters.len())?,
            functions: vec![Added::Tick, Added::Refill],
            aside: Vec::new(),
        })
    }

    /// The function's index; from now on it is appended.
    pub(super) fn function(&mut self, function: Added) -> Result<u32, InterruptibleError> {
        let place = self.functions.iter().position(|added| *added == function).unwrap_or_else(|| {
            self.functions.push(function);
            self.functions.len() - 1
        });
        Ok(self.first_function + count(place)?)
    }

    fn tick(&self) -> u32 {
        self.first_function
    }

    /// How many functions are appended. Each has a type of its own.
    pub(super) fn functions(&self) -> usize {
        self.functions.len()
    }

    /// The entries of the type section.
    pub(super) fn encode_types(&self, out: &mut Vec<u8>) {
        const FUNCTION: u8 = 0x60;
        for function in &self.functions {
            let (parameters, results) = function.signature();
            out.push(FUNCTION);
            parameters.as_slice().encode(out);
            results.as_slice().encode(out);
        }
    }

    /// The entries of the function section.
    pub(super) fn encode_type_indices(&self, out: &mut Vec<u8>) {
        for ty in (self.first_type..).take(self.functions.len()) {
            ty.encode(out);
        }
    }

    /// The entry of the table section: a table that has no room.
    pub(super) fn encode_table(out: &mut Vec<u8>) {
        const FUNCREF: u8 = 0x70;
        const WITH_MAXIMUM: u8 = 1;
        out.extend_from_slice(&[FUNCREF, WITH_MAXIMUM, 0, 0]);
    }

    /// The global by which `refill` gets what is left of an allowance and returns the new one.
    pub(super) fn left(&self) -> u32 {
        self.budget + 1
    }

    /// The globals in which variables of these types are put aside; none for what can't be.
    pub(super) fn put_aside(
        &mut self,
        types: &[ReadValType],
    ) -> Result<Vec<Option<u32>>, InterruptibleError> {
        let mut taken = vec![false; self.aside.len()];
        let mut places = Vec::with_capacity(types.len());
        for ty in types {
            let Some(ty) = constant_of(*ty).map(|_| *ty) else {
                places.push(None);
                continue;
            };
            let free = (0..self.aside.len()).find(|place| self.aside[*place] == ty && !taken[*place]);
            let place = free.unwrap_or_else(|| {
                self.aside.push(ty);
                taken.push(false);
                self.aside.len() - 1
            });
            taken[place] = true;
            places.push(Some(self.left() + 1 + count(place)?));
        }
        Ok(places)
    }

    /// How many globals are appended.
    pub(super) fn globals(&self) -> usize {
        2 + self.aside.len()
    }

    /// The entries of the global section.
    pub(super) fn encode_globals(&self, out: &mut Vec<u8>) {
        const MUTABLE: u8 = 1;
        let own = [ConstExpr::i32_const(BUDGET), ConstExpr::i32_const(0)].map(|value| (ValType::I32, value));
        let aside = self.aside.iter().filter_map(|ty| constant_of(*ty));
        for (ty, value) in own.into_iter().chain(aside) {
            ty.encode(out);
            out.push(MUTABLE);
            value.encode(out);
        }
    }

    /// The entries of the code section.
    pub(super) fn encode_bodies(&self, out: &mut Vec<u8>) {
        for function in &self.functions {
            let mut body = Vec::new();
            match function {
                Added::Tick => self.encode_tick(&mut body),
                Added::Refill => self.encode_refill(&mut body),
                Added::Bulk(bulk) => bulk.encode(self, &mut body),
            }
            body.as_slice().encode(out);
        }
    }

    fn encode_tick(&self, body: &mut Vec<u8>) {
        variables(body, 0, ValType::I32);
        let mut code = InstructionSink::new(body);
        code.i32_const(BUDGET).global_set(self.budget).ref_null(HeapType::FUNC);
        match self.table {
            (table, true) => code.i64_const(i64::from(TICK_GROWTH)).table_grow(table),
            (table, false) => code.i32_const(TICK_GROWTH.cast_signed()).table_grow(table),
        };
        code.drop().end();
    }

    fn encode_refill(&self, body: &mut Vec<u8>) {
        const CHARGE: u32 = 0;
        variables(body, 1, ValType::I32);
        let mut code = InstructionSink::new(body);
        code.i32_const(ALLOWANCE).global_get(self.left()).i32_sub().local_set(CHARGE);
        self.take(CHARGE, &mut code);
        code.i32_const(ALLOWANCE).global_set(self.left()).end();
    }

    /// Takes the charge in a variable from the budget, and asks the host where nothing is left.
    pub(super) fn take(&self, charge: u32, code: &mut InstructionSink<'_>) {
        code.global_get(self.budget).local_get(charge).i32_sub().global_set(self.budget);
        code.global_get(self.budget).i32_const(0).i32_lt_s();
        code.if_(BlockType::Empty).call(self.tick()).end();
    }

    /// Takes a charge that is known from the budget. Returns where the branch stands in `out` that is rarely taken.
    pub(super) fn take_constant(&self, charge: i32, out: &mut Vec<u8>) -> usize {
        let mut code = InstructionSink::new(out);
        code.global_get(self.budget).i32_const(charge).i32_sub().global_set(self.budget);
        code.global_get(self.budget).i32_const(0).i32_lt_s();
        let branch = out.len();
        InstructionSink::new(out).if_(BlockType::Empty).call(self.tick()).end();
        branch
    }
}

impl Added {
    fn signature(self) -> (Vec<ValType>, Vec<ValType>) {
        match self {
            Self::Tick => (Vec::new(), Vec::new()),
            Self::Refill => (Vec::new(), Vec::new()),
            Self::Bulk(bulk) => bulk.signature(),
        }
    }
}

/// The type and the zero of a variable that can be put aside; references can't.
fn constant_of(ty: ReadValType) -> Option<(ValType, ConstExpr)> {
    Some(match ty {
        ReadValType::I32 => (ValType::I32, ConstExpr::i32_const(0)),
        ReadValType::I64 => (ValType::I64, ConstExpr::i64_const(0)),
        ReadValType::F32 => (ValType::F32, ConstExpr::f32_const(0.0.into())),
        ReadValType::F64 => (ValType::F64, ConstExpr::f64_const(0.0.into())),
        ReadValType::V128 => (ValType::V128, ConstExpr::v128_const(0)),
        ReadValType::Ref(_) => return None,
    })
}

/// The beginning of a body: its variables beside the parameters, all of one type.
pub(super) fn variables(body: &mut Vec<u8>, number: u32, ty: ValType) {
    if number == 0 {
        0_u32.encode(body);
    } else {
        1_u32.encode(body);
        number.encode(body);
        ty.encode(body);
    }
}
