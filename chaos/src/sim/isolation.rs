//! Makes a thread's randomness follow from a seed, and its clocks from the simulation: also where libraries ask the
//! operating system themselves (the order of hash maps, UUIDs, election timeouts, the dates of HTTP).
//!
//! The C library's `getrandom` and `clock_gettime` are replaced in programs that link this crate. On threads for which
//! [`begin`] was not called, they do what they always do. The technique is that of madsim (github.com/madsim-rs/madsim).

#![allow(unsafe_code, reason = "functions of the C library can be replaced in no other way; both are a few lines")]

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom as ask_for_random};
use rustix::time::{ClockId, clock_gettime as ask_for_time};

use crate::random::Random;

/// When simulations begin: 2026-01-01, as the time of day.
pub const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// What a simulated thread is told.
#[derive(Clone, Copy)]
struct Simulated {
    /// The state of the random numbers.
    random: u64,
    /// Since the simulation began.
    elapsed: Duration,
}

thread_local! {
    static SIMULATED: Cell<Option<Simulated>> = const { Cell::new(None) };
}

/// From now on this thread's randomness follows from `seed`, and its clocks stand still until they are [moved on](set).
pub fn begin(seed: u64) {
    SIMULATED.set(Some(Simulated { random: seed, elapsed: Duration::ZERO }));
}

/// Sets this thread's clocks to `elapsed` after the beginning.
pub fn set(elapsed: Duration) {
    SIMULATED.set(SIMULATED.get().map(|simulated| Simulated { elapsed, ..simulated }));
}

/// The C library's `struct timespec` on 64-bit Linux.
#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// Fills `buffer` with `length` random bytes; see getrandom(2).
///
/// # Safety
/// `buffer` is valid for writing `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut MaybeUninit<u8>, length: usize, flags: u32) -> isize {
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    let Some(simulated) = SIMULATED.get() else {
        let asked = ask_for_random(bytes, GetRandomFlags::from_bits_retain(flags));
        return asked.map_or(-1, |(filled, _)| filled.len().cast_signed());
    };
    let mut random = Random::new(simulated.random);
    bytes.iter_mut().for_each(|byte| _ = byte.write(random.next_u64() as u8));
    SIMULATED.set(Some(Simulated { random: random.next_u64(), ..simulated }));
    length.cast_signed()
}

/// Tells the time; see `clock_gettime(2)`.
///
/// # Safety
/// `time` is valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: i32, time: *mut Timespec) -> i32 {
    let Some(clock) = known(clock) else { return -1 };
    let told = match SIMULATED.get() {
        None => {
            let told = ask_for_time(clock);
            Timespec { seconds: told.tv_sec, nanoseconds: told.tv_nsec }
        }
        Some(simulated) => {
            let since = simulated.elapsed + EPOCH;
            Timespec { seconds: since.as_secs().cast_signed(), nanoseconds: since.subsec_nanos().into() }
        }
    };
    // SAFETY: the caller's promise.
    unsafe { time.write(told) };
    0
}

/// The clocks of Linux by their numbers.
fn known(clock: i32) -> Option<ClockId> {
    Some(match clock {
        0 => ClockId::Realtime,
        1 => ClockId::Monotonic,
        2 => ClockId::ProcessCPUTime,
        3 => ClockId::ThreadCPUTime,
        4 => ClockId::MonotonicRaw,
        5 => ClockId::RealtimeCoarse,
        6 => ClockId::MonotonicCoarse,
        7 => ClockId::Boottime,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::hash::{BuildHasher, RandomState};
    use std::thread;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    fn draw(seed: u64) -> (u64, SystemTime) {
        let simulated = move || {
            begin(seed);
            set(Duration::from_millis(5));
            assert_eq!(Instant::now(), Instant::now());
            (RandomState::new().hash_one(1), SystemTime::now())
        };
        thread::spawn(simulated).join().unwrap()
    }

    #[test]
    fn randomness_and_time_of_a_simulated_thread_come_from_outside_and_nobody_else_notices() {
        let (drawn, at) = draw(1);
        assert_eq!((drawn, at), draw(1));
        assert_ne!(drawn, draw(2).0);
        assert_eq!(at.duration_since(UNIX_EPOCH).unwrap(), EPOCH + Duration::from_millis(5));
        let ours = || thread::spawn(|| RandomState::new().hash_one(1)).join().unwrap();
        assert_ne!(ours(), ours());
        assert!(SystemTime::now() > UNIX_EPOCH + EPOCH);
    }
}
