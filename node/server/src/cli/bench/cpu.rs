//! CPU time of processes, from `/proc/PID/stat` (proc(5)).

use std::fs;

/// Ticks per second in `/proc` on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Fields of user and system time behind the command name.
const USER_FIELD: usize = 11;
const SYSTEM_FIELD: usize = 12;

/// Measures this process, and the server's if its id is given.
#[derive(Debug)]
pub struct CpuMeter {
    client_start: Option<f64>,
    server: Option<(u32, Option<f64>)>,
}

impl CpuMeter {
    pub fn start(server_pid: Option<u32>) -> Self {
        Self { client_start: seconds_of("self"), server: server_pid.map(|pid| (pid, seconds_of(&pid.to_string()))) }
    }

    /// CPU seconds of this process since the start.
    pub fn client_seconds(&self) -> Option<f64> {
        Some(seconds_of("self")? - self.client_start?)
    }

    /// CPU seconds of the server since the start, if its process id was given.
    pub fn server_seconds(&self) -> Option<f64> {
        let (pid, start) = self.server?;
        Some(seconds_of(&pid.to_string())? - start?)
    }
}

fn seconds_of(process: &str) -> Option<f64> {
    parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<f64> {
    // The name may hold anything, even brackets: what counts is the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = |index: usize| fields.split_whitespace().nth(index)?.parse::<f64>().ok();
    Some((ticks(USER_FIELD)? + ticks(SYSTEM_FIELD)?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(parse(stat), Some(3.0));
        assert_eq!(parse("nonsense"), None);
    }
}
