//! Drawings as SVG: bars for contenders, lines for growth. Labels are text beside what they name, no legend has to be searched.

mod bars;
mod lines;

pub(crate) use bars::seconds;
pub(crate) use lines::{Line, growth};

const BLUE: &str = "#3465a4";
const YELLOW: &str = "#c4a000";
const COLOURS: [&str; 6] = [BLUE, "#cc0000", "#4e9a06", "#75507b", YELLOW, "#555753"];

/// Text that may stand in SVG.
fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A number with as many digits as a reader wants.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
