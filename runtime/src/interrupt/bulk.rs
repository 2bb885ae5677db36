//! Bulk operations, charged for their length. Those on memories go in pieces: one alone could fill gigabytes.
//!
//! What is out of bounds is left to the instruction itself, whole: it traps before it changes anything.

use wasm_encoder::{BlockType, InstructionSink, ValType};
use wasmparser::Operator;

use super::append::{Appended, variables};
use super::price::{BYTES_PER_CHARGE_LOG2, FILLED_PER_CHARGE_LOG2, MOST_ELEMENTS, PIECE_BYTES, SHORT_BYTES};
use super::survey::Survey;

/// Bytes of a page of memory, as a power of two.
const PAGE_LOG2: i64 = 16;
/// The parameters of every operation on memories.
const TO: u32 = 0;
const FROM: u32 = 1;
const LENGTH: u32 = 2;
/// The variable after them.
const CHARGE: u32 = 3;

/// An operation that is charged for its length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bulk {
    /// `memory.fill`.
    Fill { memory: Memory },
    /// `memory.copy`.
    Copy { to: Memory, from: Memory },
    /// `memory.init`.
    Init { segment: u32, memory: Memory },
    /// Before an operation on tables: takes the number of elements and gives it back.
    Elements { wide: bool },
}

/// A memory, and whether its addresses have 64 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    index: u32,
    wide: bool,
}

impl Bulk {
    /// The function that stands for an instruction, where it is a bulk operation.
    pub(super) fn of(operator: &Operator<'_>, survey: &Survey<'_>) -> Option<Self> {
        let memory = |index: u32| Memory { index, wide: survey.memories.get(index as usize) == Some(&true) };
        let wide = |table: u32| survey.tables.get(table as usize).is_some_and(|table| table.table64);
        Some(match *operator {
            Operator::MemoryFill { mem } => Self::Fill { memory: memory(mem) },
            Operator::MemoryCopy { dst_mem, src_mem } => {
                Self::Copy { to: memory(dst_mem), from: memory(src_mem) }
            }
            Operator::MemoryInit { data_index, mem } => {
                Self::Init { segment: data_index, memory: memory(mem) }
            }
            Operator::TableInit { .. } => Self::Elements { wide: false },
            Operator::TableFill { table } => Self::Elements { wide: wide(table) },
            Operator::TableCopy { dst_table, src_table } => {
                Self::Elements { wide: wide(dst_table) && wide(src_table) }
            }
            _ => return None,
        })
    }

    /// Whether it may be long, if this constant is its length.
    pub(super) fn is_long(self, length: Option<i32>) -> bool {
        !(self.replaces() && length.is_some_and(|length| (0..=SHORT_BYTES).contains(&length)))
    }

    /// Whether the function does the operation itself, and does not only stand before it.
    pub(super) const fn replaces(self) -> bool {
        !matches!(self, Self::Elements { .. })
    }

    pub(super) fn signature(self) -> (Vec<ValType>, Vec<ValType>) {
        match self {
            Self::Elements { wide } => (vec![number(wide)], vec![number(wide)]),
            Self::Fill { .. } => (vec![self.to(), ValType::I32, self.length()], Vec::new()),
            Self::Copy { from, .. } => (vec![self.to(), number(from.wide), self.length()], Vec::new()),
            Self::Init { .. } => (vec![self.to(), ValType::I32, self.length()], Vec::new()),
        }
    }

    fn to(self) -> ValType {
        match self {
            Self::Fill { memory } | Self::Init { memory, .. } => number(memory.wide),
            Self::Copy { to, .. } => number(to.wide),
            Self::Elements { wide } => number(wide),
        }
    }

    fn length(self) -> ValType {
        match self {
            Self::Fill { memory } => number(memory.wide),
            Self::Copy { to, from } => number(to.wide && from.wide),
            Self::Init { .. } => ValType::I32,
            Self::Elements { wide } => number(wide),
        }
    }

    pub(super) fn encode(self, appended: &Appended, body: &mut Vec<u8>) {
        variables(body, 1, ValType::I32);
        let mut code = Pieces { bulk: self, appended, code: InstructionSink::new(body) };
        match self {
            Self::Elements { wide } => code.encode_elements(wide),
            _ => code.encode(),
        }
        code.code.end();
    }
}

const fn number(wide: bool) -> ValType {
    if wide { ValType::I64 } else { ValType::I32 }
}

/// The code of one such function.
struct Pieces<'a> {
    bulk: Bulk,
    appended: &'a Appended,
    code: InstructionSink<'a>,
}

impl Pieces<'_> {
    fn encode_elements(&mut self, wide: bool) {
        const NUMBER: u32 = 0;
        const COUNTED: u32 = 1;
        self.code.local_get(NUMBER);
        self.constant(wide, MOST_ELEMENTS);
        self.code.local_get(NUMBER);
        self.constant(wide, MOST_ELEMENTS);
        if wide {
            self.code.i64_lt_u().select().i32_wrap_i64();
        } else {
            self.code.i32_lt_u().select();
        }
        self.code.local_set(COUNTED);
        self.appended.take(COUNTED, &mut self.code);
        self.code.local_get(NUMBER);
    }

    fn encode(&mut self) {
        self.longer_than(SHORT_BYTES);
        self.code.i32_eqz().if_(BlockType::Empty);
        self.whole();
        self.code.return_().end();
        self.longer_than(PIECE_BYTES);
        self.code.i32_eqz().if_(BlockType::Empty);
        self.charge_and_do();
        self.code.return_().end();
        self.leave_to_the_instruction_if_out_of_bounds();
        match self.bulk {
            Bulk::Copy { to, from } if to == from => {
                self.code.local_get(TO).local_get(FROM);
                if to.wide {
                    self.code.i64_gt_u()
                } else {
                    self.code.i32_gt_u()
                };
                self.code.if_(BlockType::Empty);
                self.pieces(Self::last_piece);
                self.code.else_();
                self.pieces(Self::first_piece);
                self.code.end();
            }
            _ => self.pieces(Self::first_piece),
        }
        self.charge_and_do();
    }

    fn bytes_per_charge_log2(&self) -> i32 {
        match self.bulk {
            Bulk::Fill { .. } => FILLED_PER_CHARGE_LOG2,
            _ => BYTES_PER_CHARGE_LOG2,
        }
    }

    /// Does piece by piece until one or less is left.
    fn pieces(&mut self, piece: impl Fn(&mut Self)) {
        self.code.loop_(BlockType::Empty);
        let charge = PIECE_BYTES >> self.bytes_per_charge_log2();
        self.code.i32_const(charge).local_set(CHARGE);
        self.appended.take(CHARGE, &mut self.code);
        piece(self);
        self.longer_than(PIECE_BYTES);
        self.code.br_if(0).end();
    }

    fn first_piece(&mut self) {
        let length = self.bulk.length() == ValType::I64;
        self.code.local_get(TO).local_get(FROM);
        self.constant(length, PIECE_BYTES);
        self.instruction();
        self.advance(TO, self.bulk.to(), PIECE_BYTES);
        match self.bulk {
            Bulk::Fill { .. } => {}
            Bulk::Copy { from, .. } => self.advance(FROM, number(from.wide), PIECE_BYTES),
            _ => self.advance(FROM, ValType::I32, PIECE_BYTES),
        }
        self.advance(LENGTH, self.bulk.length(), -PIECE_BYTES);
    }

    /// Where the target overlaps the source from behind, the end must be moved first. Both have the same type then.
    fn last_piece(&mut self) {
        let wide = self.bulk.length() == ValType::I64;
        self.advance(LENGTH, self.bulk.length(), -PIECE_BYTES);
        for address in [TO, FROM] {
            self.code.local_get(address).local_get(LENGTH);
            if wide {
                self.code.i64_add()
            } else {
                self.code.i32_add()
            };
        }
        self.constant(wide, PIECE_BYTES);
        self.instruction();
    }

    fn advance(&mut self, variable: u32, ty: ValType, by: i32) {
        self.code.local_get(variable);
        self.constant(ty == ValType::I64, by);
        if ty == ValType::I64 {
            self.code.i64_add()
        } else {
            self.code.i32_add()
        };
        self.code.local_set(variable);
    }

    fn longer_than(&mut self, bytes: i32) {
        let wide = self.bulk.length() == ValType::I64;
        self.code.local_get(LENGTH);
        self.constant(wide, bytes);
        if wide {
            self.code.i64_gt_u()
        } else {
            self.code.i32_gt_u()
        };
    }

    fn charge_and_do(&mut self) {
        self.code.local_get(LENGTH);
        if self.bulk.length() == ValType::I64 {
            self.code.i32_wrap_i64();
        }
        let bytes_per_charge_log2 = self.bytes_per_charge_log2();
        self.code.i32_const(bytes_per_charge_log2).i32_shr_u().local_set(CHARGE);
        self.appended.take(CHARGE, &mut self.code);
        self.whole();
    }

    fn whole(&mut self) {
        self.code.local_get(TO).local_get(FROM).local_get(LENGTH);
        self.instruction();
    }

    fn leave_to_the_instruction_if_out_of_bounds(&mut self) {
        match self.bulk {
            Bulk::Fill { memory } => self.leave_if_outside(memory, TO),
            Bulk::Copy { to, from } => {
                self.leave_if_outside(to, TO);
                self.leave_if_outside(from, FROM);
            }
            Bulk::Init { memory, .. } => {
                self.leave_if_outside(memory, TO);
                self.code.local_get(FROM).local_get(LENGTH).i32_add().local_get(FROM).i32_lt_u();
                self.leave();
                // How long a segment is only an instruction knows: to copy nothing from its end fails beyond it.
                self.constant(memory.wide, 0);
                self.code.local_get(FROM).local_get(LENGTH).i32_add().i32_const(0);
                self.instruction();
            }
            Bulk::Elements { .. } => {}
        }
    }

    fn leave_if_outside(&mut self, memory: Memory, address: u32) {
        self.as_wide(address, memory.wide);
        self.as_wide(LENGTH, self.bulk.length() == ValType::I64);
        self.code.i64_add().memory_size(memory.index);
        if !memory.wide {
            self.code.i64_extend_i32_u();
        }
        self.code.i64_const(PAGE_LOG2).i64_shl().i64_gt_u();
        if memory.wide {
            self.as_wide(address, true);
            self.as_wide(LENGTH, self.bulk.length() == ValType::I64);
            self.code.i64_add().local_get(address).i64_lt_u().i32_or();
        }
        self.leave();
    }

    fn as_wide(&mut self, variable: u32, wide: bool) {
        self.code.local_get(variable);
        if !wide {
            self.code.i64_extend_i32_u();
        }
    }

    /// Does the operation at once, which then fails, if the condition on the stack holds.
    fn leave(&mut self) {
        self.code.if_(BlockType::Empty);
        self.whole();
        self.code.unreachable().end();
    }

    fn constant(&mut self, wide: bool, value: i32) {
        if wide {
            self.code.i64_const(i64::from(value))
        } else {
            self.code.i32_const(value)
        };
    }

    fn instruction(&mut self) {
        match self.bulk {
            Bulk::Fill { memory } => self.code.memory_fill(memory.index),
            Bulk::Copy { to, from } => self.code.memory_copy(to.index, from.index),
            Bulk::Init { segment, memory } => self.code.memory_init(memory.index, segment),
            Bulk::Elements { .. } => &mut self.code,
        };
    }
}
