//! Lines over time, as SVG.

use std::fmt::Write as _;

use crate::history::{Done, Micros};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 180.0;
/// Room for the numbers on the left, and below.
const LEFT: f64 = 64.0;
const BELOW: f64 = 22.0;
/// Lines across.
const STEPS: u32 = 4;

/// What is drawn as a line.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    /// Any CSS colour.
    pub(super) colour: &'a str,
    /// One value for each stretch of time; none: there is nothing to show.
    pub(super) values: Vec<Option<f64>>,
}

/// A chart of `lines` from 0 to `end`, with what was done in grey behind them.
pub(super) fn chart(title: &str, unit: &str, lines: &[Line<'_>], done: &[Done], end: Micros) -> String {
    let top = lines.iter().flat_map(|line| line.values.iter().flatten()).copied().fold(0.0, f64::max).max(1.0) * 1.05;
    let x = |at: f64| LEFT + (WIDTH - LEFT) * at;
    let y = |value: f64| HEIGHT - HEIGHT * value / top;
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _ = write!(svg, "<figure><figcaption>{}", escape(title));
    for line in lines {
        let _ = write!(svg, " <span style=\"color:{}\">■ {}</span>", line.colour, escape(line.name));
    }
    let _ = write!(svg, "</figcaption><svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">", HEIGHT + BELOW);
    for done in done {
        let [from, to] = [done.at, done.until.max(done.at)].map(|at| x((at as f64 / end.max(1) as f64).min(1.0)));
        let width = (to - from).max(2.0);
        let _ = write!(
            svg,
            "<rect x=\"{from:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{HEIGHT}\" class=\"fault\"><title>{}</title></rect>",
            escape(&done.what)
        );
    }
    for step in 0..=STEPS {
        let value = top * f64::from(step) / f64::from(STEPS);
        let at = y(value);
        let _ = write!(svg, "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/>");
        let _ =
            write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{} {unit}</text>", LEFT - 6.0, at + 4.0, round(value));
        let (time, seconds) = (f64::from(step) / f64::from(STEPS), end as f64 / 1e6 * f64::from(step) / f64::from(STEPS));
        let anchor = if step == STEPS { "end" } else { "middle" };
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{seconds:.0} s</text>", x(time), HEIGHT + 16.0);
    }
    for line in lines {
        let count = line.values.len().max(1) as f64;
        let mut path = String::new();
        let mut pen_is_down = false;
        for (place, value) in line.values.iter().enumerate() {
            let Some(value) = value else {
                pen_is_down = false;
                continue;
            };
            let command = if std::mem::replace(&mut pen_is_down, true) { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {:.1}", x((place as f64 + 0.5) / count), y(*value));
        }
        let _ = write!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>", line.colour);
    }
    svg.push_str("</svg></figure>");
    svg
}

fn round(value: f64) -> String {
    if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Text as HTML has it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
