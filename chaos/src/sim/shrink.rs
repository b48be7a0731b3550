//! A plan that breaks a promise, cut down to what still breaks it: delta debugging (Zeller and Hildebrandt, "Simplifying and
//! isolating failure-inducing input", 2002) over the list of faults; then shorter faults, and an earlier end.

use super::plan::{Plan, Planned};

/// A fault is not made shorter than this.
const LASTS_MS_MIN: u64 = 100;
/// What is left of the time of faults behind the last one.
const AFTER_LAST_MS: u64 = 3_000;

/// Returns the smallest plan that it finds for which `broken` holds. `broken` is shown several plans and returns the place of
/// one that breaks a promise.
pub fn shrink(plan: &Plan, broken: &mut dyn FnMut(&[Plan]) -> Option<usize>) -> Plan {
    let mut plan = fewer(plan.clone(), broken);
    if plan.power_fails_at_end {
        let calm = Plan { power_fails_at_end: false, ..plan.clone() };
        plan = first(vec![calm], broken).unwrap_or(plan);
    }
    let last_ms = plan.faults.iter().map(|planned| planned.at_ms + planned.lasts_ms).max().unwrap_or_default();
    let mut earlier = plan.clone();
    earlier.shape.faults_ms = (last_ms + AFTER_LAST_MS).min(plan.shape.faults_ms);
    plan = first(vec![earlier], broken).unwrap_or(plan);
    shorter(plan, broken)
}

/// Fewer faults.
fn fewer(mut plan: Plan, broken: &mut dyn FnMut(&[Plan]) -> Option<usize>) -> Plan {
    let mut pieces = 2;
    while plan.faults.len() > 1 {
        let size = plan.faults.len().div_ceil(pieces);
        let without: Vec<Plan> = (0..plan.faults.len()).step_by(size).map(|from| without(&plan, from, size)).collect();
        match first(without, broken) {
            Some(smaller) => {
                plan = smaller;
                pieces = pieces.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => pieces = (pieces * 2).min(plan.faults.len()),
        }
    }
    plan
}

/// Faults that last less long.
fn shorter(mut plan: Plan, broken: &mut dyn FnMut(&[Plan]) -> Option<usize>) -> Plan {
    for place in 0..plan.faults.len() {
        while let Some(lasts_ms) = plan.faults.get(place).map(|planned| planned.lasts_ms / 2).filter(|ms| *ms >= LASTS_MS_MIN) {
            let mut candidate = plan.clone();
            if let Some(planned) = candidate.faults.get_mut(place) {
                planned.lasts_ms = lasts_ms;
            }
            let Some(smaller) = first(vec![candidate], broken) else { break };
            plan = smaller;
        }
    }
    plan
}

fn first(mut candidates: Vec<Plan>, broken: &mut dyn FnMut(&[Plan]) -> Option<usize>) -> Option<Plan> {
    let found = broken(&candidates)?;
    (found < candidates.len()).then(|| candidates.swap_remove(found))
}

fn without(plan: &Plan, from: usize, size: usize) -> Plan {
    let stays = |(place, planned): (usize, &Planned)| (!(from..from + size).contains(&place)).then(|| planned.clone());
    Plan { faults: plan.faults.iter().enumerate().filter_map(stays).collect(), ..plan.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::{Fault, Given, Scenario};

    #[test]
    fn what_is_left_is_what_it_takes() {
        let mut plan = Plan::of(7, Scenario::All, &Given::default());
        let kill = |node| Planned { at_ms: 5_000 + node, lasts_ms: 1_000, fault: Fault::Kill { node } };
        plan.faults.retain(|planned| !matches!(planned.fault, Fault::Kill { .. }));
        assert!(plan.faults.len() > 5);
        plan.faults.extend([kill(71), kill(72)]);
        let kills = |plan: &Plan| {
            let has = |wanted: u64| plan.faults.iter().any(|planned| planned.fault == Fault::Kill { node: wanted });
            has(71) && has(72)
        };
        let mut tried = 0;
        let small = shrink(&plan, &mut |plans| {
            tried += plans.len();
            plans.iter().position(kills)
        });
        let short = |node| Planned { lasts_ms: 125, ..kill(node) };
        assert_eq!(small.faults, [short(71), short(72)]);
        assert!(!small.power_fails_at_end);
        assert!(tried < 200, "{tried} plans were tried");
    }
}
