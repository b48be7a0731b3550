//! A server whose storage has failed begins anew, in the same process: only what is on the disk counts then, and nothing
//! that was in memory is left. Whoever supervises the process need not know.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// The flag that says how often the storage failed lately.
const FLAG: &str = "--reopened";
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A server that ran for this long is sound.
const SOUND_AFTER: Duration = Duration::from_secs(300);

/// How often the storage has failed lately, this time included, and how long to wait before the next attempt.
#[must_use]
pub fn count(before: u32, lived: Duration) -> (u32, Duration) {
    let times = if lived >= SOUND_AFTER { 1 } else { before.saturating_add(1) };
    (times, PAUSE_MAX.min(PAUSE_MIN * 2_u32.saturating_pow(times.saturating_sub(1).min(16))))
}

/// Replaces this process by a new one that was started the same way. Returns only why it could not.
#[must_use]
pub fn replace_process(times: u32) -> io::Error {
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    Command::new(program).args(arguments(env::args_os().skip(1), times)).exec()
}

fn arguments(before: impl Iterator<Item = OsString>, times: u32) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut skip_value = false;
    for argument in before {
        if std::mem::take(&mut skip_value) {
            continue;
        }
        skip_value = argument == OsStr::new(FLAG);
        if !skip_value {
            arguments.push(argument);
        }
    }
    arguments.extend([FLAG.into(), times.to_string().into()]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_grow_until_it_is_sound() {
        let pauses: Vec<u128> = (0..7).map(|before| count(before, Duration::ZERO).1.as_millis()).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
        assert_eq!(count(u32::MAX, Duration::ZERO).1, PAUSE_MAX);
        assert_eq!(count(9, SOUND_AFTER), (1, PAUSE_MIN));
    }

    #[test]
    fn the_command_line_stays_what_it_is() {
        let line = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let first = arguments(line(&["server", "--data-dir", "d"]).into_iter(), 1);
        assert_eq!(first, line(&["server", "--data-dir", "d", FLAG, "1"]));
        assert_eq!(arguments(first.into_iter(), 2), line(&["server", "--data-dir", "d", FLAG, "2"]));
    }
}
