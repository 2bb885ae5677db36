//! Which variables a loop works with. Where the host is asked, they are put aside by hand and taken up again: a
//! variable that lives across a call, however rare, costs the loop its register in every turn.
//!
//! Which ones are chosen changes how fast the code is, never what it does.

use std::collections::BTreeMap;

use wasmparser::{FunctionBody, Operator};

use super::InterruptibleError;

/// Variables that are put aside for one loop, at most: there are not many more registers.
const MOST_KEPT: usize = 20;

/// The variables that a function's loops work with.
#[derive(Default)]
pub(super) struct Hot {
    /// Of each loop in the order of their beginnings, the variables to put aside.
    pub(super) loops: Vec<Vec<u32>>,
}

#[derive(Default)]
struct Open {
    /// Its place among the loops; none for what is no loop.
    place: Option<usize>,
    uses: BTreeMap<u32, u32>,
    calls: bool,
}

impl Hot {
    pub(super) fn of(body: &FunctionBody<'_>) -> Result<Self, InterruptibleError> {
        let mut hot = Self::default();
        let mut open = vec![Open::default()];
        for operator in body.get_operators_reader()? {
            match operator? {
                Operator::Loop { .. } => {
                    open.push(Open { place: Some(hot.loops.len()), ..Open::default() });
                    hot.loops.push(Vec::new());
                }
                Operator::Block { .. } | Operator::If { .. } => open.push(Open::default()),
                Operator::End => hot.close(&mut open),
                Operator::LocalGet { local_index }
                | Operator::LocalSet { local_index }
                | Operator::LocalTee { local_index } => {
                    if let Some(open) = open.last_mut() {
                        *open.uses.entry(local_index).or_default() += 1;
                    }
                }
                Operator::Call { .. } | Operator::CallIndirect { .. } => {
                    if let Some(open) = open.last_mut() {
                        open.calls = true;
                    }
                }
                _ => {}
            }
        }
        Ok(hot)
    }

    fn close(&mut self, open: &mut Vec<Open>) {
        let Some(closed) = open.pop() else { return };
        if let Some(place) = closed.place
            && !closed.calls
        {
            let mut uses: Vec<_> = closed.uses.iter().map(|(variable, times)| (*times, *variable)).collect();
            uses.sort_unstable_by(|a, b| b.cmp(a));
            self.loops[place] = uses.into_iter().take(MOST_KEPT).map(|(_, variable)| variable).collect();
        }
        if let Some(outer) = open.last_mut() {
            outer.calls |= closed.calls;
            for (variable, times) in closed.uses {
                *outer.uses.entry(variable).or_default() += times;
            }
        }
    }
}
