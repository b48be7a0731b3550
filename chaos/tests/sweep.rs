//! A reduced sweep of system call errors, for every change: points that a seed draws.
//!
//! `FLOTILLA_SWEEP_POINTS` (24; at full size `flotilla-chaos sweep`, which tries all), `FLOTILLA_SWEEP_PHASES` (all), `FLOTILLA_SEED`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output};

fn sweep(args: &[&str]) -> Output {
    let flotilla = Path::new(env!("CARGO_BIN_EXE_flotilla-chaos")).with_file_name("flotilla");
    assert!(flotilla.is_file(), "{} is missing: build it with `cargo build --release --workspace`", flotilla.display());
    Command::new(env!("CARGO_BIN_EXE_flotilla-chaos")).arg("sweep").args(args).output().unwrap()
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_few_errors_and_kills_leave_a_good_node_behind() {
    let (points, seed) = (variable("FLOTILLA_SWEEP_POINTS", "24"), variable("FLOTILLA_SEED", "1"));
    let mut args = vec!["--points", &points, "--seed", &seed];
    let phases = variable("FLOTILLA_SWEEP_PHASES", "");
    if !phases.is_empty() {
        args.extend(["--phase", &phases]);
    }
    let output = sweep(&args);
    if said(&output).contains("cannot be watched here") {
        return eprintln!("SKIPPED sweep: {}", said(&output));
    }
    // How many calls there are depends on what else the machine does: a point behind the last of them is void. None may fail.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", said(&output));
    let summary = said(&output);
    let all = summary.lines().find_map(|line| line.strip_prefix("all")).unwrap_or_default();
    let counts: Vec<u64> = all.split_whitespace().map_while(|count| count.parse().ok()).collect();
    assert!(matches!(counts[..], [passed, 0, void] if passed >= void), "{summary}");
}

#[test]
fn a_point_that_never_comes_is_void_and_what_makes_no_sense_is_refused() {
    let output = sweep(&["--point", "restart:openat:state/NO-SUCH-FILE:1:EIO"]);
    if said(&output).contains("cannot be watched here") {
        return eprintln!("SKIPPED sweep: {}", said(&output));
    }
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("NO-SUCH-FILE:1:EIO Void"), "{}", said(&output));
    for wrong in [&["--point", "restart:openat"][..], &["--phase", "lunch"]] {
        assert_eq!(sweep(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
