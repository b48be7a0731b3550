//! Sequences of reports as replicas that keep to the rules would tell them, and as those would that do not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::*;
use crate::tripwire::track::Point;
use crate::types::{GroupId, Vote};

fn id(replica: u64) -> ReplicaId {
    ReplicaId(replica)
}

fn members(voters: &[u64], learners: &[u64]) -> Membership {
    let of = |ids: &[u64]| ids.iter().map(|replica| (id(*replica), *replica)).collect();
    Membership { voters: of(voters), learners: of(learners), joint: false }
}

/// A replica in term 3, which replica 1 leads, that has everything through `last`.
fn report(replica: u64, last: u64) -> Report {
    Report {
        group: GroupId(7),
        replica: id(replica),
        life: 1,
        vote: Vote { term: 3, voted_for: Some(id(1)), committed: true },
        committed: Some(last),
        last: Some(last),
        acknowledged: Some(Acknowledged { term: 3, index: last }),
        applied: Some(last),
        track: track(&[(last, 1)]),
        accused: Vec::new(),
    }
}

fn track(points: &[(u64, u32)]) -> Track {
    Track { from: 0, points: points.iter().map(|(index, hash)| Point { index: *index, hash: *hash }).collect() }
}

fn hashed(replica: u64, points: &[(u64, u32)]) -> Report {
    Report { track: track(points), ..report(replica, 900) }
}

fn in_term(term: u64, leader: Option<u64>, report: Report) -> Report {
    Report { vote: Vote { term, voted_for: leader.map(id), committed: leader.is_some() }, ..report }
}

fn seen(reports: &[Report]) -> Seen {
    let mut seen = Seen::default();
    reports.iter().for_each(|report| _ = seen.take(report, 1));
    seen
}

/// What follows for each of `voters`.
fn verdicts<const N: usize>(reports: &[Report], voters: [u64; N]) -> [Verdict; N] {
    voters.map(|me| seen(reports).verdict(id(me), &members(&voters, &[])))
}

fn what(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Sound => "sound",
        Verdict::Others(_) => "others",
        Verdict::Condemned(_) => "condemned",
        Verdict::Undecided(_) => "undecided",
    }
}

fn told<const N: usize>(reports: &[Report], voters: [u64; N]) -> [&'static str; N] {
    verdicts(reports, voters).each_ref().map(what)
}

#[test]
fn what_replicas_may_do_raises_nothing() {
    let before = report(2, 10);
    let acknowledged = |term, index| Some(Acknowledged { term, index });
    let may: &[(&str, Report)] = &[
        ("it goes on", report(2, 11)),
        ("it says the same again", report(2, 10)),
        (
            "after a restart it has not noted what is committed",
            Report { life: 2, committed: None, acknowledged: None, ..before.clone() },
        ),
        ("it votes in a later term", in_term(4, None, before.clone())),
        (
            "a later leader has begun to write to it",
            Report { acknowledged: acknowledged(5, 10), ..in_term(5, Some(3), report(2, 10)) },
        ),
    ];
    for (why, after) in may {
        assert_eq!(told(&[before.clone(), after.clone()], [1, 2, 3]), ["sound"; 3], "{why}");
    }
    let unapplied = Report { committed: Some(5), applied: Some(5), track: track(&[(5, 1)]), ..before };
    let replaced = Report { acknowledged: acknowledged(4, 6), last: Some(6), ..in_term(4, Some(3), unapplied.clone()) };
    assert_eq!(told(&[unapplied.clone(), replaced], [1, 2, 3]), ["sound"; 3], "a later leader may replace what was not applied");
    let tail = Report { acknowledged: acknowledged(3, 8), last: Some(10), ..unapplied.clone() };
    let shrunk = Report { last: Some(8), ..tail.clone() };
    assert_eq!(told(&[tail, shrunk], [1, 2, 3]), ["sound"; 3], "a tail that was not acknowledged may shrink");
}

/// The link that broke may be read to its end after the next one has begun.
#[test]
fn what_an_older_link_brings_late_is_passed_over() {
    let mut seen = Seen::default();
    assert!(seen.take(&report(2, 10), 2), "it is heard for the first time");
    assert!(!seen.take(&report(2, 5), 1) && !seen.has_doubt());
    assert!(!seen.take(&report(2, 5), 2) && seen.has_doubt());
    assert!(seen.take(&Report { life: 2, ..report(2, 5) }, 2));
}

#[test]
fn who_is_not_as_it_had_said_is_condemned() {
    let before = report(2, 10);
    let forgot = Report { last: Some(9), applied: Some(9), committed: Some(9), acknowledged: None, ..report(2, 9) };
    let unapplied = Report { committed: None, applied: Some(3), track: track(&[(3, 1)]), ..before.clone() };
    let bad: &[(&str, Report, Report)] = &[
        ("knew that entry 10 is committed", unapplied_but_committed(), Report { committed: Some(9), ..report(2, 10) }),
        ("had acknowledged entry 10", unapplied.clone(), Report { life: 2, ..forgot.clone() }),
        ("had acknowledged entry 10", unapplied, Report { last: None, life: 2, ..forgot.clone() }),
        ("had applied entry 10", before.clone(), Report { life: 2, ..in_term(4, None, forgot) }),
        ("was in term 3 and is in term 2", before, Report { life: 2, ..in_term(2, None, report(2, 10)) }),
    ];
    for (how, before, after) in bad {
        let found = verdicts(&[before.clone(), after.clone()], [1, 2, 3]);
        assert_eq!(found.each_ref().map(what), ["others", "condemned", "others"], "{how}");
        let Verdict::Condemned(words) = &found[1] else { panic!("{how}") };
        assert!(words.contains("replica 2 on node 2") && words.contains(how), "{words}");
        assert_eq!(told(&[before.clone(), after.clone()], [1, 2]), ["undecided"; 2], "{how}: nobody could do without it");
        assert_eq!(seen(&[before.clone(), after.clone()]).accused(), [id(2)]);
    }
}

fn unapplied_but_committed() -> Report {
    Report { applied: Some(9), ..report(2, 10) }
}

/// It has no memory of its own of what it has lost.
#[test]
fn who_forgot_hears_it_from_the_others() {
    let accusing = Report { accused: vec![id(2), id(99)], ..report(1, 10) };
    assert_eq!(told(&[accusing], [1, 2, 3]), ["others", "condemned", "others"]);
}

#[test]
fn a_term_with_two_leaders_is_decided_by_whom_most_follow() {
    let says = |replica, leader| in_term(5, Some(leader), report(replica, 10));
    assert_eq!(told(&[says(1, 1), says(2, 2), says(3, 2)], [1, 2, 3]), ["condemned", "others", "others"]);
    assert_eq!(told(&[says(1, 1), says(2, 2)], [1, 2, 3]), ["undecided"; 3]);
    assert_eq!(told(&[says(1, 1), says(2, 1), says(3, 1)], [1, 2, 3]), ["sound"; 3]);
    let later = in_term(6, Some(2), report(1, 10));
    assert_eq!(told(&[says(1, 1), later.clone(), says(2, 2)], [1, 2, 3]), ["undecided"; 3], "it is not forgotten at once");
    assert_eq!(told(&[says(1, 1), later], [1, 2, 3]), ["sound"; 3], "each term has its leader");
}

#[test]
fn whose_chain_differs_is_outvoted() {
    let (a, b, c) = (hashed(1, &[(255, 1), (300, 2)]), hashed(2, &[(255, 9), (290, 8)]), hashed(3, &[(255, 1), (300, 2)]));
    assert_eq!(told(&[a.clone(), b.clone(), c.clone()], [1, 2, 3]), ["others", "condemned", "others"]);
    assert_eq!(told(&[a.clone(), b.clone()], [1, 2, 3]), ["undecided"; 3], "the third has not spoken");
    assert_eq!(told(&[a.clone(), c.clone()], [1, 2, 3]), ["sound"; 3]);
    let third = hashed(3, &[(255, 5)]);
    assert_eq!(told(&[a.clone(), b.clone(), third], [1, 2, 3]), ["undecided"; 3], "each says something else");
    // What two of them say later, the third has not: it is known who of them is right.
    let later = hashed(1, &[(511, 3)]);
    let wrong = hashed(2, &[(511, 7)]);
    assert_eq!(told(&[a, b, c, later, wrong], [1, 2, 3]), ["others", "condemned", "others"]);
}

#[test]
fn a_learner_is_outvoted_and_outvotes_nobody() {
    let members = members(&[3], &[1, 2]);
    let reports = [hashed(1, &[(255, 9)]), hashed(2, &[(255, 9)]), hashed(3, &[(255, 1)])];
    let found = [1, 2, 3].map(|me| what(&seen(&reports).verdict(id(me), &members)));
    assert_eq!(found, ["condemned", "condemned", "others"]);
}

#[test]
fn chains_that_began_elsewhere_are_not_compared() {
    let late = Report { track: Track { from: 256, ..track(&[(300, 9)]) }, ..report(2, 900) };
    assert_eq!(told(&[hashed(1, &[(300, 1)]), late, hashed(3, &[(300, 1)])], [1, 2, 3]), ["sound"; 3]);
}

/// What a replica applied in a life that is over is not what it has.
#[test]
fn another_life_begins_another_track() {
    let (a, b, c) = (hashed(1, &[(255, 1)]), hashed(2, &[(255, 9)]), hashed(3, &[(255, 1)]));
    let copied = Report { life: 2, ..hashed(2, &[(300, 2)]) };
    assert_eq!(told(&[a, b, c, copied], [1, 2, 3]), ["sound"; 3]);
}

#[test]
fn who_was_replaced_is_forgotten_and_the_alarm_is_over() {
    let mut seen = seen(&[hashed(1, &[(255, 1)]), hashed(2, &[(255, 9)]), hashed(3, &[(255, 1)])]);
    assert_eq!(what(&seen.verdict(id(1), &members(&[1, 2, 3], &[]))), "others");
    assert_eq!(what(&seen.verdict(id(1), &members(&[1, 3], &[4]))), "sound");
    assert!(!seen.doubt);
}

#[test]
fn leaders_of_few_terms_are_remembered() {
    let seen = seen(&(0..100).map(|term| in_term(term, Some(1), report(2, 10))).collect::<Vec<_>>());
    assert_eq!(seen.leaders.len(), TERMS_KEPT);
}
