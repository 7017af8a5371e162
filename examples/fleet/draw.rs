//! What existed when, as SVG: a row for each service, a column for each day, and in it a dot for each backup at its age.

use std::fmt::Write as _;

use crate::world::{Day, Drawn};

const WIDTH: f64 = 1100.0;
const LABEL: f64 = 210.0;
const ROW: f64 = 92.0;
const TOP: f64 = 64.0;
/// The oldest age that a row shows, in hours; the axis is logarithmic from half an hour on.
const OLDEST: f64 = 31.0 * 24.0;

fn place(hours: f64) -> f64 {
    let (least, most) = (0.5_f64.ln(), OLDEST.ln());
    (hours.clamp(0.5, OLDEST).ln() - least) / (most - least)
}

/// Draws `rows` over `days`.
pub(crate) fn svg(rows: &[Drawn], days: u32) -> String {
    let column = (WIDTH - LABEL - 20.0) / f64::from(days);
    let height = TOP + rows.len() as f64 * ROW + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">Which backups existed on which day, by their age</text>\n\
         <text x=\"12\" y=\"44\" fill=\"#555\">each dot is a backup; grey: the service is off; red: deleted, and its backups are still there</text>\n"
    );
    for (row, drawn) in rows.iter().enumerate() {
        let top = TOP + row as f64 * ROW;
        let bottom = top + ROW - 22.0;
        let _ = writeln!(svg, "<text x=\"12\" y=\"{:.0}\">{}</text>", top + 24.0, drawn.title);
        let _ = writeln!(svg, "<text x=\"12\" y=\"{:.0}\" fill=\"#555\">{}</text>", top + 40.0, drawn.plan);
        for (hours, label) in [(1.0, "1 h"), (24.0, "1 d"), (OLDEST, "31 d")] {
            let y = bottom - place(hours) * (bottom - top);
            let _ = writeln!(
                svg,
                "<line x1=\"{LABEL}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.1}\" \
                 text-anchor=\"end\" font-size=\"10\" fill=\"#777\">{label}</text>",
                WIDTH - 20.0,
                LABEL - 6.0,
                y + 3.0
            );
        }
        for day in &drawn.days {
            column_of(&mut svg, day, (LABEL + f64::from(day.number) * column, column), (top, bottom));
        }
    }
    for day in (0..=days).step_by(20) {
        let x = LABEL + f64::from(day) * column;
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\" font-size=\"10\">day {day}</text>",
            height - 12.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn column_of(svg: &mut String, day: &Day, (x, width): (f64, f64), (top, bottom): (f64, f64)) {
    let shade = match day.stage {
        "off" => Some("#e4e4e4"),
        "deleted" => Some("#f6d5d5"),
        _ => None,
    };
    if let Some(colour) = shade {
        let height = bottom - top;
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.2}\" y=\"{top:.1}\" width=\"{width:.2}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
        );
    }
    for age in &day.ages {
        let y = bottom - place(*age) * (bottom - top);
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.2}\" cy=\"{y:.1}\" r=\"{:.2}\" fill=\"#3465a4\"/>",
            x + width / 2.0,
            (width / 2.5).clamp(0.8, 2.2)
        );
    }
}
