//! One function, rewritten: its loops count, and it counts itself where its callers don't.
//!
//! ```text
//! loop                                            ;; as it was, and then
//!   count -= what the longest turn costs
//!   if count <= 0                                 ;; marked as rare
//!     put the loop's variables aside; refill; take them up again
//!   end
//! ```
//! Everything else is copied byte for byte: no label moves.

use wasm_encoder::{BlockType, Encode as _, InstructionSink, ValType};
use wasmparser::{FunctionBody, Operator, ValType as ReadValType};

use super::InterruptibleError;
use super::append::{Added, Appended};
use super::bulk::Bulk;
use super::hot::Hot;
use super::price::{self, FREE_ALLOWANCE, FREE_WORK, LEAST_ENTRY_CHARGE};
use super::survey::{Survey, count};
use super::ways::{self, Seen};

/// Most variables that a function may have; the limit is that of the JavaScript API, which wasmtime keeps.
const MOST_VARIABLES: usize = 50_000;

/// A function as it is compiled.
pub(super) struct Rewritten {
    /// With its variables, without its length.
    pub(super) body: Vec<u8>,
    /// Where in the body branches stand that are rarely taken.
    pub(super) rare: Vec<u32>,
    /// Work of a call that its caller has to count; none where the function counts itself.
    pub(super) uncounted: Option<u32>,
}

/// What is known before a function is rewritten.
pub(super) struct Function<'a> {
    pub(super) survey: &'a Survey<'a>,
    pub(super) body: &'a FunctionBody<'a>,
    /// The function's index.
    pub(super) index: u32,
    /// Whether it must count itself, whatever its work is.
    pub(super) cuts: bool,
    /// Of each function that the module defines, the work that its callers have to count. One that is not rewritten
    /// yet counts itself, if this one calls it.
    pub(super) uncounted: &'a [Option<u32>],
}

impl Function<'_> {
    pub(super) fn rewrite(&self, appended: &mut Appended) -> Result<Rewritten, InterruptibleError> {
        let seen = ways::see(self)?;
        let ty = self.survey.functions.get(self.index as usize).copied().unwrap_or_default();
        let mut variables = self.survey.parameters.get(ty as usize).cloned().unwrap_or_default();
        let mut groups = 0_u32;
        let locals = self.body.get_locals_reader()?;
        let first_group = locals.original_position();
        for group in locals {
            let (number, ty) = group?;
            variables.extend(std::iter::repeat_n(ty, number as usize));
            groups += 1;
        }
        if variables.len() >= MOST_VARIABLES {
            return Err(InterruptibleError::Full { what: "the variables of a function" });
        }
        let start = self.body.range().start;
        let first_operator = self.body.get_operators_reader()?.original_position();
        let loops = seen.loops.iter().any(Option::is_some);
        let mut body = Vec::with_capacity(self.body.as_bytes().len() * 5 / 4);
        (groups + u32::from(loops)).encode(&mut body);
        body.extend_from_slice(&self.body.as_bytes()[first_group - start..first_operator - start]);
        let counter = count(variables.len())?;
        let mut code = Code {
            function: self,
            appended,
            seen,
            hot: Hot::of(self.body)?,
            variables,
            counter,
            body,
            rare: Vec::new(),
        };
        if loops {
            1_u32.encode(&mut code.body);
            ValType::I32.encode(&mut code.body);
        }
        let uncounted = code.begin(loops);
        code.copy()?;
        let rare = code.rare.iter().map(|place| count(*place)).collect::<Result<_, _>>()?;
        Ok(Rewritten { body: code.body, rare, uncounted })
    }
}

/// The code while it is written.
struct Code<'a, 'b> {
    function: &'a Function<'a>,
    appended: &'b mut Appended,
    seen: Seen,
    hot: Hot,
    variables: Vec<ReadValType>,
    /// The variable that loops count in.
    counter: u32,
    body: Vec<u8>,
    rare: Vec<usize>,
}

impl Code<'_, '_> {
    fn sink(&mut self) -> InstructionSink<'_> {
        InstructionSink::new(&mut self.body)
    }

    /// Writes what stands before the function's own code. Returns the work that its callers have to count.
    fn begin(&mut self, loops: bool) -> Option<u32> {
        let work = price::add(self.seen.longest, if loops { FREE_WORK } else { 0 });
        let limit =
            price::uncounted_limit(self.function.survey.called_by_unknown[self.function.index as usize]);
        let counts_itself = self.function.cuts || !self.seen.returns || work > limit;
        if counts_itself {
            let charge = price::charge(work).max(LEAST_ENTRY_CHARGE);
            self.rare.push(self.appended.take_constant(charge, &mut self.body));
        }
        if loops {
            let counter = self.counter;
            self.sink().i32_const(FREE_ALLOWANCE).local_set(counter);
        }
        (!counts_itself).then_some(work)
    }

    /// Writes the function's own code.
    fn copy(&mut self) -> Result<(), InterruptibleError> {
        let start = self.function.body.range().start;
        let mut operators = self.function.body.get_operators_reader()?;
        let mut constant = None;
        let mut loops = 0;
        while !operators.eof() {
            let offset = operators.original_position();
            let operator = operators.read()?;
            let bytes = &self.function.body.as_bytes()[offset - start..operators.original_position() - start];
            let bulk = Bulk::of(&operator, self.function.survey).filter(|bulk| bulk.is_long(constant));
            if let Some(bulk) = bulk {
                let function = self.appended.function(Added::Bulk(bulk))?;
                self.sink().call(function);
            }
            if bulk.is_none_or(|bulk| !bulk.replaces()) {
                self.body.extend_from_slice(bytes);
            }
            if matches!(operator, Operator::Loop { .. }) {
                if let Some(charge) = self.seen.loops[loops] {
                    self.count_turn(charge, loops)?;
                }
                loops += 1;
            }
            constant = match operator {
                Operator::I32Const { value } => Some(value),
                _ => None,
            };
        }
        Ok(())
    }

    /// Writes what stands at the begin of a loop.
    fn count_turn(&mut self, charge: i32, place: usize) -> Result<(), InterruptibleError> {
        let counter = self.counter;
        let refill = self.appended.function(Added::Refill)?;
        self.sink().local_get(counter).i32_const(charge).i32_sub().local_tee(counter).i32_const(0).i32_le_s();
        self.rare.push(self.body.len());
        self.sink().if_(BlockType::Empty);
        let kept = std::mem::take(&mut self.hot.loops[place]);
        let types: Vec<_> = kept.iter().map(|variable| self.variables[*variable as usize]).collect();
        let aside = self.appended.put_aside(&types)?;
        for (variable, global) in kept.iter().zip(&aside) {
            if let Some(global) = global {
                self.sink().local_get(*variable).global_set(*global);
            }
        }
        // By way of a global, not as an argument: an argument has a register of its own, which the loop would feel.
        let left = self.appended.left();
        self.sink().local_get(counter).global_set(left).call(refill).global_get(left).local_set(counter);
        for (variable, global) in kept.iter().zip(&aside) {
            if let Some(global) = global {
                self.sink().global_get(*global).local_set(*variable);
            }
        }
        self.sink().end();
        Ok(())
    }
}
