//! A bar chart as SVG.

use crate::figures::Figures;

const WIDTH: f64 = 860.0;
const ROW: f64 = 34.0;
const LABEL: f64 = 250.0;

/// Median seconds of each contender, with processor seconds as a thinner bar below.
pub(crate) fn seconds(title: &str, all: &[Figures]) -> String {
    let most = all.iter().map(|f| f.wall.median.max(f.cpu.median)).fold(0.001, f64::max);
    let scale = (WIDTH - LABEL - 130.0) / most;
    let height = 70.0 + all.len() as f64 * ROW;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">{title}</text>\n\
         <rect x=\"12\" y=\"34\" width=\"10\" height=\"10\" fill=\"#3465a4\"/><text x=\"27\" y=\"43\">seconds, median</text>\n\
         <rect x=\"142\" y=\"34\" width=\"10\" height=\"10\" fill=\"#c4a000\"/><text x=\"157\" y=\"43\">processor seconds</text>\n"
    );
    for (row, f) in all.iter().enumerate() {
        let y = 60.0 + row as f64 * ROW;
        svg.push_str(&format!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LABEL}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"14\" fill=\"#3465a4\"/>\n\
             <rect x=\"{LABEL}\" y=\"{:.0}\" width=\"{:.1}\" height=\"6\" fill=\"#c4a000\"/>\n\
             <text x=\"{:.0}\" y=\"{:.0}\">{:.2} s, {:.0} MB/s</text>\n",
            LABEL - 8.0,
            y + 14.0,
            f.name,
            f.wall.median * scale,
            y + 15.0,
            f.cpu.median * scale,
            LABEL + f.wall.median.max(f.cpu.median) * scale + 8.0,
            y + 14.0,
            f.wall.median,
            f.rate / 1e6,
        ));
    }
    svg.push_str("</svg>\n");
    svg
}
