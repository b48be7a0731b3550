//! Random crash schedules of the real journal on the simulated disk: what was acknowledged is there, nothing else is,
//! and nothing is called damage.
//!
//! `FLOTILLA_CRASH_SCHEDULES` sets how many schedules run (2,000), `FLOTILLA_SEED` the seed of the first one (1). A
//! failure names its seed; that seed with a count of 1 repeats it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod journal_support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use flotilla_raft::journal::Step;
use journal_support::world::{Reached, World};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

/// One life of the process: work, then some kind of end.
fn live(world: &mut World) -> Result<(), String> {
    let plan = world.rng.below(10);
    let operations = 1 + world.rng.below(60);
    world.disk.faults(|faults| match plan {
        0..=2 => faults.power_fails_in = Some(operations),
        3..=4 => faults.sync_fails_in = Some(operations / 3),
        5 => faults.write_fails_in = Some(operations / 3),
        6 => faults.capacity_bytes = 256 << 10,
        _ => {}
    });
    for _ in 0..world.rng.below(80) {
        let step = match world.rng.below(8) {
            0..=3 => {
                world.submit_something();
                continue;
            }
            4 => {
                world.answer_wishes();
                continue;
            }
            5 => world.settle()?,
            _ => world.step(),
        };
        if step == Step::Failed {
            world.reached.failed += 1;
            break;
        }
    }
    end(world)
}

fn end(world: &mut World) -> Result<(), String> {
    match world.rng.below(5) {
        0 => {
            world.settle()?;
            world.close();
        }
        1 => {
            world.drop_journal();
            world.disk.kill();
        }
        // The store is restarted in the same process: handles live on, nothing is lost but what failed.
        2 if !power_is_off(world) => world.drop_journal(),
        _ => {
            world.drop_journal();
            world.disk.power_cut();
        }
    }
    if power_is_off(world) {
        world.disk.power_cut();
    }
    world.disk.faults(|faults| {
        faults.power_fails_in = None;
        faults.sync_fails_in = None;
        faults.write_fails_in = None;
    });
    Ok(())
}

fn power_is_off(world: &World) -> bool {
    use flotilla_raft::disk::Disk;
    world.disk.list(std::path::Path::new("/")).is_err()
}

fn schedule(seed: u64, lying_sync: bool) -> Result<Reached, String> {
    let mut world = World::new(seed);
    world.disk.faults(|faults| faults.lying_sync = lying_sync);
    for _ in 0..3 + world.rng.below(5) {
        world.open()?;
        live(&mut world)?;
    }
    world.open()?;
    Ok(world.reached)
}

/// Runs schedules on all cores; returns what they reached and the failures.
fn run(first: u64, count: u64, lying_sync: bool) -> (Vec<Reached>, Vec<(u64, String)>) {
    let next = AtomicU64::new(first);
    let results = Mutex::new((Vec::new(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    let result = std::panic::catch_unwind(|| schedule(seed, lying_sync));
                    let mut results = results.lock().unwrap();
                    match result {
                        Ok(Ok(reached)) => results.0.push(reached),
                        Ok(Err(reason)) => results.1.push((seed, reason)),
                        Err(_) => results.1.push((seed, "panicked (see above)".to_owned())),
                    }
                }
            });
        }
    });
    results.into_inner().unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_invented() {
    let count = setting("FLOTILLA_CRASH_SCHEDULES", 2000);
    let (reached, mut failures) = run(setting("FLOTILLA_SEED", 1), count, false);
    failures.sort();
    if let Some((seed, reason)) = failures.first() {
        panic!("{} of {count} schedules failed; FLOTILLA_SEED={seed} FLOTILLA_CRASH_SCHEDULES=1: {reason}", failures.len());
    }
    let sum = |figure: fn(&Reached) -> u64| reached.iter().map(figure).sum::<u64>();
    let figures = [
        ("acknowledged", sum(|r| r.acknowledged)),
        ("reopened", sum(|r| r.reopened)),
        ("failed disks", sum(|r| r.failed)),
        ("wishes to recycle", sum(|r| r.wishes)),
        ("waits for a free file", sum(|r| r.waited)),
        ("crashes while opening", sum(|r| r.crashed_while_opening)),
        ("full disks", sum(|r| r.disk_full)),
    ];
    println!("{count} schedules: {figures:?}");
    if count >= 500 {
        assert!(figures.iter().all(|(_, figure)| *figure > 0), "the schedules do not reach everything: {figures:?}");
    }
}

/// The same schedules must notice a disk whose sync does nothing: so acknowledgements wait for the disk, and the
/// comparison sees loss.
#[test]
fn a_lying_sync_is_noticed() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (_, failures) = run(1, 50, true);
    std::panic::set_hook(hook);
    assert!(failures.len() > 25, "only {} of 50 schedules noticed", failures.len());
}
