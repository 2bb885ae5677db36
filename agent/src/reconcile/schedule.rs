//! When the reconcile loop plans, and the planned steps that wait for room. A plan looks at every replica, so with a
//! hundred thousand of them one plan must do for many steps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::plan::Step;

/// Components that are prepared at the same time: they want the disk and the processors for themselves.
const MAX_PREPARING: usize = 2;

/// Partitions that are opened or upgraded at the same time.
const MAX_STARTING: usize = 64;

/// Partitions that are closed or purged at the same time; apart from the others, because a partition may
/// need its whole deadline to finish what it has accepted.
const MAX_REMOVING: usize = 256;

/// How long after a plan the next one comes although nothing is known to have changed.
const LONGEST_QUIET: Duration = Duration::from_secs(1);

/// Of the loop's time, plans for the sake of nothing but certainty take at most one part of this.
const QUIET_COSTS: u32 = 200;

/// Of the loop's time, plans take at most about one part of this while steps end.
const BUSY_COSTS: u32 = 3;

/// Steps of a plan that were not begun yet; each concerns a replica or module of its own, so what becomes of one
/// does not change the others.
#[derive(Debug)]
pub(crate) struct Schedule {
    removing: Lane,
    preparing: Lane,
    starting: Lane,
    planned_at: Instant,
    cost: Duration,
    need: Need,
}

/// Why there should be a next plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Nothing is known to have changed.
    Certainty,
    /// A step ended; what follows from it can wait until the steps that are planned have begun.
    StepEnded,
    /// The steps that are planned may be wrong.
    Changed,
}

#[derive(Debug)]
struct Lane {
    waiting: VecDeque<Step>,
    under_way: usize,
    most: usize,
}

impl Lane {
    const fn new(most: usize) -> Self {
        Self { waiting: VecDeque::new(), under_way: 0, most }
    }
}

impl Schedule {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            removing: Lane::new(MAX_REMOVING),
            preparing: Lane::new(MAX_PREPARING),
            starting: Lane::new(MAX_STARTING),
            planned_at: now,
            cost: Duration::ZERO,
            need: Need::Changed,
        }
    }

    /// There is a reason for a next plan.
    pub(crate) fn needs_plan(&mut self, need: Need) {
        self.need = self.need.max(need);
    }

    /// When to plan next, if nothing more happens before; never after `retry`.
    pub(crate) fn next_plan(&self, retry: Option<Instant>) -> Instant {
        let quiet = self.planned_at + LONGEST_QUIET.max(self.cost * QUIET_COSTS);
        let busy = self.planned_at + self.cost * BUSY_COSTS;
        let waits =
            [&self.removing, &self.preparing, &self.starting].iter().any(|lane| !lane.waiting.is_empty());
        let at = match self.need {
            Need::Changed => busy,
            Need::StepEnded if !waits => busy,
            // A removal may take long, and what follows it should not.
            Need::StepEnded => (self.planned_at + LONGEST_QUIET).max(busy),
            Need::Certainty => quiet,
        };
        retry.map_or(at, |retry| at.min(retry.max(busy)))
    }

    /// Takes the steps of a new plan in place of those that have not begun.
    pub(crate) fn replace(&mut self, steps: Vec<Step>, began: Instant, now: Instant) {
        for lane in [&mut self.removing, &mut self.preparing, &mut self.starting] {
            lane.waiting.clear();
        }
        for step in steps {
            self.lane(&step).waiting.push_back(step);
        }
        (self.planned_at, self.cost, self.need) = (now, now.duration_since(began), Need::Certainty);
    }

    /// The next step that there is room for, removals first. It is under way from now on.
    pub(crate) fn begin(&mut self) -> Option<Step> {
        [&mut self.removing, &mut self.preparing, &mut self.starting].into_iter().find_map(|lane| {
            if lane.under_way == lane.most {
                return None;
            }
            let step = lane.waiting.pop_front()?;
            lane.under_way += 1;
            Some(step)
        })
    }

    /// A step has ended.
    pub(crate) fn end(&mut self, step: &Step, went_well: bool) {
        self.lane(step).under_way -= 1;
        let prepared = matches!(step, Step::Prepare { .. });
        self.needs_plan(if prepared || !went_well { Need::Changed } else { Need::StepEnded });
    }

    fn lane(&mut self, step: &Step) -> &mut Lane {
        match step {
            Step::Prepare { .. } => &mut self.preparing,
            Step::Close { .. } | Step::Purge { .. } => &mut self.removing,
            Step::Open { .. } | Step::Upgrade { .. } | Step::Adopt { .. } => &mut self.starting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closes(count: usize) -> Vec<Step> {
        (0..count).map(|n| Step::Close { replica: format!("d/g/{n}").parse().expect("a replica") }).collect()
    }

    #[test]
    fn one_plan_does_for_all_its_steps_and_the_next_comes_when_they_have_begun() {
        let began = Instant::now();
        let now = began + Duration::from_millis(100);
        let mut schedule = Schedule::new(began);
        assert_eq!(schedule.next_plan(None), began, "the first plan is made at once");
        schedule.replace(closes(MAX_REMOVING + 1), began, now);
        let begun: Vec<Step> = std::iter::from_fn(|| schedule.begin()).collect();
        assert_eq!(begun.len(), MAX_REMOVING);
        schedule.end(&begun[0], true);
        assert!(schedule.next_plan(None) >= now + LONGEST_QUIET, "a step waits");
        assert!(schedule.begin().is_some() && schedule.begin().is_none());
        assert_eq!(schedule.next_plan(None), now + Duration::from_millis(300));
        schedule.needs_plan(Need::Changed);
        schedule.replace(Vec::new(), now, now + Duration::from_millis(100));
        assert!(schedule.next_plan(None) >= now + Duration::from_secs(20), "nothing happened");
        let retry = now + Duration::from_secs(2);
        assert_eq!(schedule.next_plan(Some(retry)), retry);
    }

    #[test]
    fn what_makes_planned_steps_wrong_is_planned_for_before_they_have_begun() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.replace(closes(2 * MAX_REMOVING), now, now);
        while schedule.begin().is_some() {}
        schedule.needs_plan(Need::Changed);
        assert_eq!(schedule.next_plan(None), now);
    }
}
