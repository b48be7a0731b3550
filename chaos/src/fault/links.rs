//! Which directions a fault of the network cuts.

use super::Fault;
use crate::cluster::End;

/// From whom to whom nothing arrives while `fault` hits `victims`, of `all` nodes.
#[must_use]
pub fn cut(fault: Fault, victims: &[u64], all: &[u64]) -> Vec<(End, End)> {
    let others = || all.iter().filter(|node| !victims.contains(node));
    let pairs = |to_others: bool, from_others: bool| {
        let both = victims.iter().flat_map(|victim| others().map(move |other| (End::Node(*victim), End::Node(*other))));
        both.flat_map(move |(victim, other)| {
            let there = to_others.then_some((victim, other));
            there.into_iter().chain(from_others.then_some((other, victim)))
        })
    };
    match fault {
        Fault::Alone | Fault::Halves => pairs(true, true).collect(),
        Fault::OneWay => pairs(true, false).collect(),
        Fault::Ring => not_neighbours(all),
        Fault::ClientsOnly => {
            let ways = |victim: &u64| [(End::Clients, End::Node(*victim)), (End::Node(*victim), End::Clients)];
            victims.iter().flat_map(ways).collect()
        }
        _ => Vec::new(),
    }
}

/// In a ring of four or more each reaches its two neighbours. Of three, all would be: there one link is missing.
fn not_neighbours(all: &[u64]) -> Vec<(End, End)> {
    let count = all.len();
    let apart = |one: usize, other: usize| {
        let distance = one.abs_diff(other);
        if count > 3 { distance != 1 && distance != count - 1 } else { distance + 1 == count && count == 3 }
    };
    let mut cuts = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let far = all.iter().enumerate().filter(|(other_at, _)| *other_at != at && apart(at, *other_at));
        cuts.extend(far.map(|(_, other)| (End::Node(*one), End::Node(*other))));
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(fault: Fault, victims: &[u64], all: &[u64]) -> Vec<String> {
        let name = |end: End| match end {
            End::Node(id) => id.to_string(),
            End::Clients => "c".to_owned(),
        };
        let mut shown: Vec<String> =
            cut(fault, victims, all).into_iter().map(|(from, to)| name(from) + ">" + &name(to)).collect();
        shown.sort();
        shown
    }

    #[test]
    fn each_fault_cuts_its_directions() {
        assert_eq!(shown(Fault::Alone, &[2], &[1, 2, 3]), ["1>2", "2>1", "2>3", "3>2"]);
        assert_eq!(shown(Fault::OneWay, &[2], &[1, 2, 3]), ["2>1", "2>3"]);
        assert_eq!(shown(Fault::Halves, &[1, 2], &[1, 2, 3]), ["1>3", "2>3", "3>1", "3>2"]);
        assert_eq!(shown(Fault::ClientsOnly, &[1], &[1, 2]), ["1>c", "c>1"]);
        assert_eq!(shown(Fault::Ring, &[], &[1, 2, 3]), ["1>3", "3>1"]);
        assert_eq!(shown(Fault::Ring, &[], &[1, 2, 3, 4]), ["1>3", "2>4", "3>1", "4>2"]);
        assert_eq!(shown(Fault::Ring, &[], &[1, 2, 3, 4, 5]).len(), 10);
        assert_eq!(shown(Fault::Kill, &[1], &[1, 2, 3]), [""; 0]);
    }
}
