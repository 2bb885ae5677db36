//! The ways through a function: how much work lies on the longest of them, and what each loop has to count.
//!
//! WebAssembly's control flow is nested, so one pass in the order of the code sees every way forward: at the end of a
//! block, the ways that arrive there join. A way back to a loop's begin ends the count of that loop's body.

use wasmparser::{BinaryReaderError, Operator};

use super::InterruptibleError;
use super::function::Function;
use super::price::{self, UNCOUNTED_WORK_OF_UNKNOWN};

/// All ways from a function's begin to one place in it.
#[derive(Clone, Copy, Default)]
struct Ways {
    /// The most work on one of them.
    work: u32,
    /// The fewest calls, on one of them, of functions that count themselves.
    counted_calls: u32,
}

impl Ways {
    fn join(here: Option<Self>, more: Option<Self>) -> Option<Self> {
        match (here, more) {
            (Some(a), Some(b)) => {
                Some(Self { work: a.work.max(b.work), counted_calls: a.counted_calls.min(b.counted_calls) })
            }
            (one, other) => one.or(other),
        }
    }
}

/// What is known of a function once all its ways were seen.
#[derive(Default)]
pub(super) struct Seen {
    /// Work on the longest way, each loop gone through once.
    pub(super) longest: u32,
    /// Whether a way leads back to the caller.
    pub(super) returns: bool,
    /// Of each loop in the order of their beginnings, what one turn is charged; none where it need not count.
    pub(super) loops: Vec<Option<i32>>,
}

/// A block that is open.
struct Frame {
    kind: Kind,
    /// The ways that leave it by its end.
    end: Option<Ways>,
}

enum Kind {
    Block,
    /// The ways that begin its other arm, until that arm is there.
    If(Option<Ways>),
    /// The ways that first came to its begin, and its place among the loops.
    Loop(Ways, usize),
}

/// Goes through a function.
struct Walk<'a> {
    function: &'a Function<'a>,
    frames: Vec<Frame>,
    /// The ways here; none where no way leads.
    here: Option<Ways>,
    seen: Seen,
}

/// Sees all ways through a function.
pub(super) fn see(function: &Function<'_>) -> Result<Seen, InterruptibleError> {
    let whole = Frame { kind: Kind::Block, end: None };
    let mut walk = Walk { function, frames: vec![whole], here: Some(Ways::default()), seen: Seen::default() };
    let mut operators = function.body.get_operators_reader()?;
    while !operators.eof() {
        let offset = operators.original_position();
        let operator = operators.read()?;
        if branches_unseen(&operator) {
            let name = format!("{operator:?}");
            let instruction = name.split([' ', '{', '(']).next().unwrap_or_default().to_owned();
            return Err(InterruptibleError::Instruction { instruction, offset });
        }
        walk.step(&operator)?;
    }
    Ok(walk.seen)
}

impl Walk<'_> {
    fn spend(&mut self, work: u32) {
        if let Some(here) = &mut self.here {
            here.work = price::add(here.work, work);
            self.seen.longest = self.seen.longest.max(here.work);
        }
    }

    fn step(&mut self, operator: &Operator<'_>) -> Result<(), BinaryReaderError> {
        self.spend(price::work_of(operator));
        match operator {
            Operator::Block { .. } => self.frames.push(Frame { kind: Kind::Block, end: None }),
            Operator::If { .. } => self.frames.push(Frame { kind: Kind::If(self.here), end: None }),
            Operator::Loop { .. } => {
                let kind = Kind::Loop(self.here.unwrap_or_default(), self.seen.loops.len());
                self.seen.loops.push(None);
                self.frames.push(Frame { kind, end: None });
            }
            Operator::Else => self.turn_to_else(),
            Operator::End => self.close(),
            Operator::Br { relative_depth } => {
                self.branch(*relative_depth);
                self.here = None;
            }
            Operator::BrIf { relative_depth } => self.branch(*relative_depth),
            Operator::BrTable { targets } => {
                for target in targets.targets() {
                    self.branch(target?);
                }
                self.branch(targets.default());
                self.here = None;
            }
            Operator::Call { function_index } => self.call(Some(*function_index)),
            Operator::CallIndirect { .. } => self.call(None),
            Operator::ReturnCall { function_index } => {
                self.call(Some(*function_index));
                self.leave();
            }
            Operator::ReturnCallIndirect { .. } => {
                self.call(None);
                self.leave();
            }
            Operator::Return => self.leave(),
            Operator::Unreachable => self.here = None,
            _ => {}
        }
        Ok(())
    }

    /// A call of a function, or of one that is not known.
    fn call(&mut self, callee: Option<u32>) {
        let defined = callee.and_then(|callee| self.function.survey.defined(callee));
        let work = match defined.and_then(|defined| self.function.uncounted.get(defined)) {
            Some(None) => {
                if let Some(here) = &mut self.here {
                    here.counted_calls += 1;
                }
                0
            }
            Some(Some(work)) => *work,
            None if callee.is_some() => price::IMPORT,
            None => UNCOUNTED_WORK_OF_UNKNOWN,
        };
        self.spend(price::add(price::CALL, work));
    }

    fn branch(&mut self, depth: u32) {
        let place = self.frames.len().saturating_sub(1 + depth as usize);
        let (Some(frame), Some(here)) = (self.frames.get_mut(place), self.here) else { return };
        match frame.kind {
            Kind::Loop(begin, number) => {
                let charge = price::charge(here.work.saturating_sub(begin.work));
                let is_counted = here.counted_calls > begin.counted_calls;
                if !is_counted || charge > price::COVERED_BY_CALL {
                    let most = &mut self.seen.loops[number];
                    *most = Some(most.unwrap_or(0).max(charge));
                }
            }
            _ => frame.end = Ways::join(frame.end, self.here),
        }
    }

    fn leave(&mut self) {
        self.seen.returns |= self.here.is_some();
        self.here = None;
    }

    fn turn_to_else(&mut self) {
        let Some(frame) = self.frames.last_mut() else { return };
        frame.end = Ways::join(frame.end, self.here);
        if let Kind::If(other_arm) = &mut frame.kind {
            self.here = other_arm.take();
        }
    }

    fn close(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        self.here = Ways::join(self.here, frame.end);
        if let Kind::If(other_arm) = frame.kind {
            self.here = Ways::join(self.here, other_arm);
        }
        if self.frames.is_empty() {
            self.leave();
        }
    }
}

/// Instructions of proposals that are not offered, whose ways through the code nothing here follows. The validator
/// refuses them before.
fn branches_unseen(operator: &Operator<'_>) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::Try { .. }
            | O::TryTable { .. }
            | O::Catch { .. }
            | O::CatchAll
            | O::Delegate { .. }
            | O::Rethrow { .. }
            | O::Throw { .. }
            | O::ThrowRef
            | O::CallRef { .. }
            | O::ReturnCallRef { .. }
            | O::BrOnNull { .. }
            | O::BrOnNonNull { .. }
            | O::BrOnCast { .. }
            | O::BrOnCastFail { .. }
            | O::Suspend { .. }
            | O::Resume { .. }
            | O::ResumeThrow { .. }
            | O::Switch { .. }
    )
}
