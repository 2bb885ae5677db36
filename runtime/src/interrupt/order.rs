//! The order in which functions are rewritten: callees before callers, and where calls go round, which functions
//! cut the circles.

use wasmparser::Operator;

use super::InterruptibleError;
use super::survey::Survey;

/// An order of the functions that a module defines.
pub(super) struct Order {
    /// Each function after all that it calls, but for those in `cuts`.
    pub(super) callees_first: Vec<usize>,
    /// Functions that count themselves, so that every circle of calls goes through one that does.
    pub(super) cuts: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    Not,
    Begun,
    Done,
}

impl Order {
    pub(super) fn of(survey: &Survey<'_>) -> Result<Self, InterruptibleError> {
        let callees = survey
            .bodies
            .iter()
            .map(|body| callees(survey, body))
            .collect::<Result<Vec<_>, InterruptibleError>>()?;
        let mut order = Self { callees_first: Vec::new(), cuts: vec![false; callees.len()] };
        let mut visits = vec![Visit::Not; callees.len()];
        // Depth first, with a stack of its own: how deep it goes is the module's choice.
        let mut path: Vec<(usize, usize)> = Vec::new();
        for root in 0..callees.len() {
            if visits[root] != Visit::Not {
                continue;
            }
            visits[root] = Visit::Begun;
            path.push((root, 0));
            while let Some((function, next)) = path.last_mut() {
                let Some(callee) = callees[*function].get(*next) else {
                    visits[*function] = Visit::Done;
                    order.callees_first.push(*function);
                    path.pop();
                    continue;
                };
                *next += 1;
                match visits[*callee] {
                    Visit::Not => {
                        visits[*callee] = Visit::Begun;
                        path.push((*callee, 0));
                    }
                    Visit::Begun => order.cuts[*callee] = true,
                    Visit::Done => {}
                }
            }
        }
        Ok(order)
    }
}

fn callees(
    survey: &Survey<'_>,
    body: &wasmparser::FunctionBody<'_>,
) -> Result<Vec<usize>, InterruptibleError> {
    let mut callees = Vec::new();
    for operator in body.get_operators_reader()? {
        if let Operator::Call { function_index } | Operator::ReturnCall { function_index } = operator? {
            callees.extend(survey.defined(function_index));
        }
    }
    callees.sort_unstable();
    callees.dedup();
    Ok(callees)
}
