//! How far one stamp goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

const DAY_MS: i64 = 24 * 3_600_000;

fn any_reading() -> impl Strategy<Value = Reading> {
    (proptest::option::of(1_i64..1 << 48), 1_i64..1 << 48).prop_map(|(proven_ms, likely_ms)| Reading { proven_ms, likely_ms })
}

proptest! {
    #[test]
    fn time_never_leaps_and_nothing_is_dated_before_it(now_ms in 1_i64..1 << 48, ago_ms in 0_i64..1 << 40, reading in any_reading()) {
        let stamp = next_stamp(Stamped { now_ms, ago_ms }, reading);
        prop_assert!(stamp.now_ms.abs_diff(now_ms) <= (ago_ms * CATCH_UP_RATE + AGREE_MS_MAX) as u64);
        prop_assert!(stamp.dated_ms >= stamp.now_ms && stamp.dated_ms >= reading.likely_ms);
        if let Some(proven_ms) = reading.proven_ms {
            // Never past it, on either side.
            prop_assert!((now_ms.min(proven_ms)..=now_ms.max(proven_ms)).contains(&stamp.now_ms));
        }
    }

    #[test]
    fn a_clock_that_nobody_has_proven_moves_time_by_a_minute_at_most(
        now_ms in 1_i64..1 << 48, ago_ms in 0_i64..1 << 40, likely_ms in 1_i64..1 << 48,
    ) {
        let stamp = next_stamp(Stamped { now_ms, ago_ms }, Reading { proven_ms: None, likely_ms });
        prop_assert!(stamp.now_ms.abs_diff(now_ms + ago_ms) <= AGREE_MS_MAX as u64);
        prop_assert!(stamp.now_ms >= now_ms);
    }

    /// From wherever it was, a group that is stamped now and then reaches the proven time.
    #[test]
    fn it_gets_there(now_ms in 1_i64..1 << 42, from_ms in 1_i64..1 << 42) {
        let (mut now_ms, mut true_ms) = (now_ms, from_ms);
        for _ in 0..3_000 {
            // Every hour.
            true_ms += DAY_MS / 24;
            let reading = Reading { proven_ms: Some(true_ms), likely_ms: true_ms };
            now_ms = next_stamp(Stamped { now_ms, ago_ms: DAY_MS / 24 }, reading).now_ms;
        }
        prop_assert!(now_ms == true_ms, "{now_ms} {true_ms}");
    }
}

#[test]
fn a_cluster_that_was_off_for_a_week_catches_up_in_ten_minutes() {
    let (mut now_ms, mut true_ms, mut passed_ms) = (1_000, 1_000 + 7 * DAY_MS, 0);
    while now_ms < true_ms {
        (true_ms, passed_ms) = (true_ms + 100, passed_ms + 100);
        let reading = Reading { proven_ms: Some(true_ms), likely_ms: true_ms };
        let stamp = next_stamp(Stamped { now_ms, ago_ms: 100 }, reading);
        assert_eq!(stamp.dated_ms, true_ms, "what arrives meanwhile is not a week old");
        now_ms = stamp.now_ms;
    }
    assert!((600_000..610_000).contains(&passed_ms), "{passed_ms}");
}

#[test]
fn a_new_group_takes_the_best_there_is() {
    let new = Stamped { now_ms: 0, ago_ms: 0 };
    let stamp = |proven_ms, likely_ms| next_stamp(new, Reading { proven_ms, likely_ms });
    assert_eq!(stamp(None, 5_000), MachineTime { now_ms: 5_000, dated_ms: 5_000 });
    assert_eq!(stamp(Some(4_000), 5_000), MachineTime { now_ms: 4_000, dated_ms: 5_000 });
    assert_eq!(stamp(None, -5), MachineTime { now_ms: 1, dated_ms: 1 });
}

#[test]
fn a_little_ahead_it_waits() {
    let stamped = Stamped { now_ms: 100_000, ago_ms: 1_000 };
    let stamp = |proven_ms| next_stamp(stamped, Reading { proven_ms: Some(proven_ms), likely_ms: proven_ms }).now_ms;
    assert_eq!(stamp(100_001), 100_001);
    assert_eq!(stamp(99_999), 100_000);
    assert_eq!(stamp(100_000 - OLDER_STAMP_MS_MAX), 100_000);
    assert_eq!(stamp(100_000 - OLDER_STAMP_MS_MAX - 1), 39_999, "it was wrong");
}
