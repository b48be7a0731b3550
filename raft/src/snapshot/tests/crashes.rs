//! The receiver's power fails at every single step: what it comes back with is the old or the new, whole.

use super::*;

const OLD: u64 = 40;
const NEW: u64 = 120;
const LIVE_FROM: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_leaves_the_old_or_the_new_and_never_a_mixture() {
    let a = Node::new(1);
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..OLD).await;
    release(&source, LIVE_FROM).await;
    let old = stream(&source).await;
    fill(&source, OLD..NEW).await;
    let new = stream(&source).await;

    let (mut kept_old, mut kept_new) = (0, 0);
    for step in 0.. {
        let mut b = Node::new(step);
        let (log, mut store) = storage(&b).await;
        install(&mut store, receive(&log, &old).unwrap()).await.unwrap();
        b.disk.faults(|faults| faults.power_fails_in = Some(step));
        let installed = match receive(&log, &new) {
            Ok(received) => install(&mut store, received).await,
            Err(error) => Err(error),
        };
        drop((log, store));
        b.power_cut();
        let is_new = comes_back_whole(&b, step).await;
        assert!(is_new || installed.is_err(), "step {step}: it was installed and is gone");
        (kept_old, kept_new) = (kept_old + u32::from(!is_new), kept_new + u32::from(is_new));
        if installed.is_ok() && kept_new > 3 {
            break;
        }
    }
    assert!(kept_old > 10, "the power failed during too few steps: {kept_old}");
}

/// Whether it came back with the new snapshot.
async fn comes_back_whole(b: &Node, step: u64) -> bool {
    let group = lead(b).await;
    assert_eq!(b.lives(), [(GROUP, group.log().incarnation())], "step {step}: nothing is left over");
    let (rows, items) = content(b, &group, LIVE_FROM).await;
    let count = number(&rows[1].1);
    assert!([OLD, NEW].contains(&count), "step {step}: {count}");
    assert_eq!(rows, rows_after(count, LIVE_FROM), "step {step}");
    assert_eq!(items, expected(0..count)[LIVE_FROM as usize..], "step {step}");
    assert_eq!(propose(&group, KEEP, payload(count)).await, count + 1, "step {step}");
    assert_eq!(kept(&group, LIVE_FROM).await, expected(0..count + 1)[LIVE_FROM as usize..], "step {step}");
    count == NEW
}
