//! What work costs, and how much of it may pass between two looks at the clock.
//!
//! Work is estimated in units of roughly one simple instruction, on the longest path between two charges. A charge
//! stands for at most [`UNDERSTATED`] times as much work.

use wasmparser::Operator;

/// Changes with everything that makes other code of the same component: compiled code is kept under it.
pub(crate) const VERSION: u32 = 2;

/// Elements that `tick` asks a table to grow by. No table can have so many, so a guest that asks for it by itself
/// gets the answer that it would have got anyway.
pub(crate) const TICK_GROWTH: u32 = u32::MAX;

/// Charges between two ticks.
pub(super) const BUDGET: i32 = 1 << 17;
/// Charges that the loops of one call have before they take from the budget.
pub(super) const FREE_ALLOWANCE: i32 = 32;
/// Charges that a loop takes from the budget at a time, after those.
pub(super) const ALLOWANCE: i32 = 2048;
/// The least that a function charges which counts itself.
pub(super) const LEAST_ENTRY_CHARGE: i32 = 8;
/// A turn of a loop that would be charged so much at most need not count where it calls a function that does.
pub(super) const COVERED_BY_CALL: i32 = 4 * LEAST_ENTRY_CHARGE;
/// Bytes that one piece of a bulk operation moves.
pub(super) const PIECE_BYTES: i32 = 64 << 10;
/// Bytes moved that count as one charge, as a power of two.
pub(super) const BYTES_PER_CHARGE_LOG2: i32 = 2;
/// The same of bytes filled. What is filled is often memory that was never touched, which the operating system clears
/// first, at fifty times the cost: a budget is spent on 32 pages.
pub(super) const FILLED_PER_CHARGE_LOG2: i32 = 0;
/// Elements of a table that one operation is charged for at most, one each: no table of the host has more.
pub(super) const MOST_ELEMENTS: i32 = 1 << 16;
/// Bytes of a bulk operation up to which its length is not counted: its work is that of so many.
pub(super) const SHORT_BYTES: i32 = 1024;
/// Work of a bulk operation of so many bytes, at most.
const SHORT_WORK: u32 = 80;

/// Work that counts one to one: short paths, where a charge must be right.
const EXACT_WORK: u32 = 16;
/// How much work beyond that one charge stands for. A path's length is its longest, and often far from what is taken.
const UNDERSTATED: u32 = 8;
/// Work of one call of a function that is not counted by the function itself, but by its callers.
const UNCOUNTED_WORK: u32 = 512;
/// The same where the caller does not know which function it calls: through a table, or in another module.
pub(super) const UNCOUNTED_WORK_OF_UNKNOWN: u32 = 128;
/// Work of a call, beside the callee's.
pub(super) const CALL: u32 = 4;
/// Work of a call of an imported function. It is the host's in most cases, which takes some 0.2 µs at least; what takes
/// the host much longer looks at the clock itself.
pub(super) const IMPORT: u32 = 2048;
/// Work that no path reaches: what is longer counts as this.
const MOST_WORK: u32 = 1 << 20;
/// Work of the loops of one call that [`FREE_ALLOWANCE`] may stand for.
pub(super) const FREE_WORK: u32 = FREE_ALLOWANCE.unsigned_abs() * UNDERSTATED;

/// The charge for a path with so much work.
pub(super) fn charge(work: u32) -> i32 {
    let understated = work.saturating_sub(EXACT_WORK).div_ceil(UNDERSTATED);
    let charge = work.clamp(1, EXACT_WORK) + understated;
    i32::try_from(charge).unwrap_or(i32::MAX)
}

/// The most work of one call of a function that does not count itself.
pub(super) fn uncounted_limit(called_by_unknown: bool) -> u32 {
    if called_by_unknown { UNCOUNTED_WORK_OF_UNKNOWN } else { UNCOUNTED_WORK }
}

/// Work that follows work.
pub(super) fn add(work: u32, more: u32) -> u32 {
    work.saturating_add(more).min(MOST_WORK)
}

/// The work of an instruction, without what it calls.
pub(super) fn work_of(operator: &Operator<'_>) -> u32 {
    use Operator as O;
    match operator {
        O::Nop | O::Block { .. } | O::Loop { .. } | O::Else | O::End | O::Drop | O::Unreachable => 0,
        O::LocalGet { .. }
        | O::I32Const { .. }
        | O::I64Const { .. }
        | O::F32Const { .. }
        | O::F64Const { .. } => 0,
        O::MemoryGrow { .. } | O::TableGrow { .. } => 4096,
        O::MemoryFill { .. } | O::MemoryCopy { .. } | O::MemoryInit { .. } | O::DataDrop { .. } => SHORT_WORK,
        O::TableFill { .. } | O::TableCopy { .. } | O::TableInit { .. } | O::ElemDrop { .. } => 16,
        O::TableGet { .. } | O::TableSet { .. } | O::RefFunc { .. } => 8,
        O::I32DivS | O::I32DivU | O::I32RemS | O::I32RemU => 8,
        O::I64DivS | O::I64DivU | O::I64RemS | O::I64RemU => 12,
        O::F32Sqrt | O::F64Sqrt | O::F32Div | O::F64Div => 8,
        O::BrTable { .. } => 4,
        _ => work_by_kind(operator),
    }
}

fn work_by_kind(operator: &Operator<'_>) -> u32 {
    use Operator as O;
    match operator {
        O::I32Load { .. }
        | O::I64Load { .. }
        | O::F32Load { .. }
        | O::F64Load { .. }
        | O::I32Load8S { .. }
        | O::I32Load8U { .. }
        | O::I32Load16S { .. }
        | O::I32Load16U { .. }
        | O::I64Load8S { .. }
        | O::I64Load8U { .. }
        | O::I64Load16S { .. }
        | O::I64Load16U { .. }
        | O::I64Load32S { .. }
        | O::I64Load32U { .. }
        | O::I32Store { .. }
        | O::I64Store { .. }
        | O::F32Store { .. }
        | O::F64Store { .. }
        | O::I32Store8 { .. }
        | O::I32Store16 { .. }
        | O::I64Store8 { .. }
        | O::I64Store16 { .. }
        | O::I64Store32 { .. } => 3,
        O::LocalSet { .. }
        | O::LocalTee { .. }
        | O::GlobalGet { .. }
        | O::GlobalSet { .. }
        | O::Br { .. }
        | O::BrIf { .. }
        | O::If { .. }
        | O::Select
        | O::I32Eqz
        | O::I32Add
        | O::I32Sub
        | O::I32And
        | O::I32Or
        | O::I32Xor
        | O::I32Shl
        | O::I32ShrS
        | O::I32ShrU
        | O::I64Add
        | O::I64Sub
        | O::I64And
        | O::I64Or
        | O::I64Xor
        | O::I64Shl
        | O::I64ShrS
        | O::I64ShrU => 1,
        // Comparisons, conversions, floating point; vector operations, some of which are ten instructions.
        _ => 2,
    }
}
