//! `flotilla-chaos check` and `flotilla-chaos report`: a recorded history judged, and shown.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use flotilla_chaos::checkers::{Finding, check_all, void_because};
use flotilla_chaos::history::{Counts, History};
use flotilla_chaos::report::{Report, Verdict, page};
use serde::Serialize;

use super::{CliError, print};

/// Arguments of `flotilla-chaos check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// A history, as a run writes it: see README.md
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `flotilla-chaos report`.
#[derive(Debug, clap::Args)]
pub(super) struct ReportArgs {
    /// A history, as a run writes it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to write the page
    #[arg(long, default_value = "report.html", value_name = "FILE")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Checked {
    verdict: Verdict,
    records: Counts,
    findings: Vec<Finding>,
    void_because: Vec<String>,
    /// The most memory that checking took.
    resident_kib_max: Option<u64>,
}

/// Checks, prints what was found, and says which code to end with.
pub(super) fn check(args: &CheckArgs) -> Result<u8, CliError> {
    let history = read(&args.file)?;
    let (findings, void_because) = (check_all(&history), void_because(&history));
    let verdict = Report::judge(&findings, &[], &void_because);
    let checked = Checked { verdict, records: history.counts(), findings, void_because, resident_kib_max: resident_kib_max() };
    print(&if args.json {
        serde_json::to_string(&checked).map_err(|error| CliError::Io(error.to_string()))? + "\n"
    } else {
        text(&checked)
    })?;
    Ok(super::code(verdict))
}

/// Writes the page.
pub(super) fn report(args: &ReportArgs) -> Result<u8, CliError> {
    let history = read(&args.file)?;
    let title = args.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed = |error| CliError::Io(format!("{}: {error}", args.out.display()));
    std::fs::write(&args.out, page(&title, &history)).map_err(failed)?;
    print(&format!("{}\n", args.out.display()))?;
    Ok(0)
}

fn read(path: &Path) -> Result<History, CliError> {
    let file = File::open(path).map_err(|error| CliError::Io(format!("{}: {error}", path.display())))?;
    History::read_json(BufReader::new(file)).map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))
}

fn text(checked: &Checked) -> String {
    let Counts { ok, fail, info } = checked.records;
    let mut text = format!("{ok} records acknowledged, {fail} failed, {info} unknown\n");
    for Finding { checker, violations, examples } in checked.findings.iter().filter(|finding| finding.violations > 0) {
        text.push_str(&format!("{checker}: {violations} times\n"));
        examples.iter().for_each(|example| text.push_str(&format!("  {example}\n")));
    }
    checked.void_because.iter().for_each(|reason| text.push_str(&format!("void: {reason}\n")));
    let checkers = checked.findings.len();
    text.push_str(&match checked.verdict {
        Verdict::Pass => format!("pass: {checkers} checkers found nothing\n"),
        Verdict::Fail => "FAIL\n".to_owned(),
        Verdict::Void => "VOID: too little happened to say anything\n".to_owned(),
    });
    text
}

/// As Linux counts it.
fn resident_kib_max() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}
