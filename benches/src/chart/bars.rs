//! A bar for each contender.

use super::{BLUE, YELLOW, number, text};
use crate::figures::Figures;

const WIDTH: f64 = 940.0;
const ROW: f64 = 40.0;
const TOP: f64 = 62.0;
const LABEL: f64 = 290.0;
/// What stands behind the longest bar.
const TAIL: f64 = 240.0;

/// Median seconds of each contender with the spread as a line, and processor seconds as a thinner bar below.
pub(crate) fn seconds(title: &str, all: &[Figures]) -> String {
    let processor = |f: &Figures| f.cpu.median + f.server_cpu.median;
    let most = all.iter().map(|f| f.wall.max.max(processor(f))).fold(0.001, f64::max);
    let scale = (WIDTH - LABEL - TAIL) / most;
    let height = TOP + all.len() as f64 * ROW + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">{}</text>\n\
         <rect x=\"12\" y=\"36\" width=\"10\" height=\"10\" fill=\"{BLUE}\"/><text x=\"27\" y=\"45\">seconds, median and spread</text>\n\
         <rect x=\"222\" y=\"36\" width=\"10\" height=\"10\" fill=\"{YELLOW}\"/><text x=\"237\" y=\"45\">processor seconds, the server's included</text>\n",
        text(title)
    );
    for (row, f) in all.iter().enumerate() {
        let y = TOP + row as f64 * ROW;
        let (wall, cpu) = (f.wall.median * scale, processor(f) * scale);
        let (least, most) = (LABEL + f.wall.min * scale, LABEL + f.wall.max * scale);
        let rate = if f.rate > 0.0 { format!(", {} MB/s", number(f.rate / 1e6)) } else { String::new() };
        svg.push_str(&format!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LABEL}\" y=\"{y:.0}\" width=\"{wall:.1}\" height=\"16\" fill=\"{BLUE}\"/>\n\
             <path d=\"M{least:.1} {:.0}H{most:.1}\" stroke=\"black\"/>\n\
             <rect x=\"{LABEL}\" y=\"{:.0}\" width=\"{cpu:.1}\" height=\"7\" fill=\"{YELLOW}\"/>\n\
             <text x=\"{:.0}\" y=\"{:.0}\">{} s, {} CPU s{rate}</text>\n",
            LABEL - 8.0,
            y + 15.0,
            text(&f.name),
            y + 8.0,
            y + 17.0,
            most.max(LABEL + cpu) + 8.0,
            y + 15.0,
            number(f.wall.median),
            number(processor(f)),
        ));
    }
    svg.push_str("</svg>\n");
    svg
}
