//! One page of HTML about a history, complete in itself: what was written, how fast, what was done meanwhile, what was
//! checked, and what was found.

use std::fmt::Write as _;

use super::chart::{Line, chart, escape};
use super::{Report, Verdict};
use crate::checkers::{Finding, check_all, void_because};
use crate::history::{History, Micros, Outcome};

/// Stretches of time in a chart.
const STRETCHES: usize = 240;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#222}\
    h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left;\
    vertical-align:top}.pass{color:#15803d}.fail{color:#b91c1c}.void{color:#a16207}svg{width:100%;font-size:11px}svg text{fill:#555}\
    .grid{stroke:#ddd}.fault{fill:#64748b;fill-opacity:.16}figure{margin:1rem 0}code{white-space:pre-wrap}";

/// The page about `history`, under a title.
#[must_use]
pub fn page(title: &str, history: &History) -> String {
    let (findings, void) = (check_all(history), void_because(history));
    let verdict = Report::judge(&findings, &[], &void);
    let (class, word) = match verdict {
        Verdict::Pass => ("pass", "every promise held"),
        Verdict::Fail => ("fail", "a promise was broken"),
        Verdict::Void => ("void", "void: too little happened to say anything"),
    };
    let title = escape(title);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style><h1>{title}: <span \
         class=\"{class}\">{word}</span></h1>"
    );
    // Writing to a string does not fail.
    let _ = figures(&mut html, history);
    charts(&mut html, history);
    let _ = checked(&mut html, &findings, &void);
    let _ = done(&mut html, history);
    html
}

fn figures(html: &mut String, history: &History) -> std::fmt::Result {
    let counts = history.counts();
    let mut latencies: Vec<Micros> = acked(history).map(|(invoked, completed)| completed.saturating_sub(invoked)).collect();
    latencies.sort_unstable();
    let of = |share: f64| {
        let at = ((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(at).copied().unwrap_or_default() as f64 / 1_000.0
    };
    let seconds = end(history) as f64 / 1e6;
    let rows = [
        ("written", format!("{} acknowledged, {} unknown, {} failed, in {seconds:.1} s", counts.ok, counts.info, counts.fail)),
        ("latency", format!("median {:.1} ms, 99 % within {:.1} ms, longest {:.1} ms", of(0.5), of(0.99), of(1.0))),
        ("read", format!("{} records by readers and final reads", history.seen().count())),
        ("positions", format!("{} stored, {} asked for", history.commits.len(), history.committed.len())),
        ("done", format!("{} faults and orders", history.done.len())),
    ];
    html.push_str("<table>");
    for (name, value) in rows {
        write!(html, "<tr><th>{name}</th><td>{value}</td></tr>")?;
    }
    html.push_str("</table>");
    Ok(())
}

fn charts(html: &mut String, history: &History) {
    let end = end(history);
    let mut stretches: Vec<Vec<Micros>> = vec![Vec::new(); STRETCHES];
    for (invoked, completed) in acked(history) {
        let place = (u128::from(completed) * STRETCHES as u128 / u128::from(end.max(1))) as usize;
        if let Some(stretch) = stretches.get_mut(place.min(STRETCHES - 1)) {
            stretch.push(completed.saturating_sub(invoked));
        }
    }
    stretches.iter_mut().for_each(|stretch| stretch.sort_unstable());
    let seconds = end as f64 / 1e6 / STRETCHES as f64;
    let rate = stretches.iter().map(|stretch| Some(stretch.len() as f64 / seconds.max(f64::MIN_POSITIVE))).collect();
    let share = |of: fn(usize) -> usize| {
        let at = |stretch: &Vec<Micros>| stretch.get(of(stretch.len())).map(|micros| *micros as f64 / 1_000.0);
        stretches.iter().map(at).collect::<Vec<_>>()
    };
    let throughput = Line { name: "records a second", colour: "#2563eb", values: rate };
    html.push_str(&chart("Acknowledged", "", &[throughput], &history.done, end));
    let latency = [
        Line { name: "median", colour: "#15803d", values: share(|count| count / 2) },
        Line { name: "99 %", colour: "#b45309", values: share(|count| (count * 99 / 100).min(count.saturating_sub(1))) },
    ];
    html.push_str(&chart("Time to the acknowledgement", "ms", &latency, &history.done, end));
}

fn checked(html: &mut String, findings: &[Finding], void: &[String]) -> std::fmt::Result {
    html.push_str("<h2>Checked</h2><table>");
    for Finding { checker, violations, examples } in findings {
        let (class, word) =
            if *violations == 0 { ("pass", "held".to_owned()) } else { ("fail", format!("broken {violations} times")) };
        write!(html, "<tr><td>{checker}</td><td class=\"{class}\">{word}</td><td>")?;
        for example in examples {
            write!(html, "{}<br>", escape(example))?;
        }
        html.push_str("</td></tr>");
    }
    html.push_str("</table>");
    for reason in void {
        write!(html, "<p class=\"void\">{}</p>", escape(reason))?;
    }
    Ok(())
}

fn done(html: &mut String, history: &History) -> std::fmt::Result {
    html.push_str("<h2>Done</h2><table>");
    for done in &history.done {
        let (at, lasted) = (done.at as f64 / 1e6, done.until.saturating_sub(done.at) as f64 / 1e6);
        write!(html, "<tr><td>{at:.3} s</td><td>{lasted:.3} s</td><td><code>{}</code></td></tr>", escape(&done.what))?;
    }
    html.push_str("</table></html>\n");
    Ok(())
}

/// When acknowledged records were sent, and when the acknowledgement came.
fn acked(history: &History) -> impl Iterator<Item = (Micros, Micros)> + '_ {
    history
        .produces()
        .filter(|produce| matches!(produce.outcome, Outcome::Ok(_)))
        .filter_map(|produce| Some((produce.invoked, produce.completed?)))
}

fn end(history: &History) -> Micros {
    let produced = history.produces().filter_map(|produce| produce.completed).max().unwrap_or_default();
    history.done.iter().map(|done| done.until).max().unwrap_or_default().max(produced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Done;

    #[test]
    fn a_page_is_complete_and_says_what_was_done_and_found() {
        let mut history = History::default();
        for at in 0..100 {
            let id = history.invoke(0, 0, 1, 0, at * 1_000);
            history.resolve(id, Outcome::Ok(at), at * 1_000 + 500);
        }
        history.done.push(Done { at: 20_000, until: 40_000, what: "kill <node 1>".to_owned() });
        let html = page("a run", &history);
        assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
        assert!(html.contains("void: too little happened"), "nothing was read at the end");
        assert!(html.contains("kill &lt;node 1&gt;") && html.contains("100 acknowledged"));
        assert_eq!(html.matches("<svg").count(), 2);
        assert!(!html.contains("http"), "it needs nothing from elsewhere");
    }
}
