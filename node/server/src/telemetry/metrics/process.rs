//! Memory and CPU time of this process, as Linux reports them; absent elsewhere.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::scrape::Scrape;

/// See the module.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some((resident_bytes, cpu_seconds)) = usage() else { return Ok(()) };
        let mut scrape = Scrape(encoder);
        scrape.gauge("process_resident_memory_bytes", "Memory of the process that is in RAM", resident_bytes)?;
        scrape.counter("process_cpu_seconds", "CPU time that the process has used, user and system", cpu_seconds)
    }
}

/// Resident bytes and CPU seconds, from /proc (see proc_pid_status(5) and proc_pid_stat(5)).
fn usage() -> Option<(u64, f64)> {
    /// Unit of CPU times in /proc: USER_HZ, 100 on every architecture that we build for.
    const TICKS_PER_SECOND: f64 = 100.0;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_kib: u64 = resident.trim().trim_end_matches(" kB").parse().ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name may hold spaces and parentheses; the fields are counted from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let ticks = fields.nth(11)?.parse::<u32>().ok()?.checked_add(fields.next()?.parse().ok()?)?;
    Some((resident_kib * 1024, f64::from(ticks) / TICKS_PER_SECOND))
}
