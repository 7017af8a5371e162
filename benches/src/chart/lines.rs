//! Lines over a growing quantity, both axes logarithmic: a cost that grows as a power of it is a straight line.

use super::{COLOURS, number, text};

const WIDTH: f64 = 940.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
/// Room for the names of the lines.
const RIGHT: f64 = 270.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 50.0;

/// One quantity at several sizes.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Its name with the exponent.
    pub(crate) name: String,
    /// Size and cost, both above 0.
    pub(crate) points: Vec<(f64, f64)>,
}

/// The lines over `across`, whose costs are in `unit`.
pub(crate) fn growth(title: &str, across: &str, unit: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let horizontal = Axis::of(points().map(|p| p.0), LEFT, WIDTH - RIGHT);
    let vertical = Axis::of(points().map(|p| p.1), HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">{}</text>\n<text x=\"12\" y=\"42\">{}</text>\n\
         <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>\n",
        text(title),
        text(unit),
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 10.0,
        text(across),
    );
    for tick in horizontal.ticks() {
        let x = horizontal.at(tick);
        svg.push_str(&format!(
            "<path d=\"M{x:.1} {TOP}V{:.1}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>\n",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0,
            short(tick),
        ));
    }
    for tick in vertical.ticks() {
        let y = vertical.at(tick);
        svg.push_str(&format!(
            "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            short(tick),
        ));
    }
    for (line, place) in lines.iter().zip(labels(lines, &vertical)) {
        let colour = COLOURS[place.0 % COLOURS.len()];
        let path: Vec<_> =
            line.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", horizontal.at(x), vertical.at(y))).collect();
        svg.push_str(&format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            path.join(" ")
        ));
        for point in &path {
            let (x, y) = point.split_once(',').unwrap_or_default();
            svg.push_str(&format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>"));
        }
        svg.push_str(&format!(
            "\n<text x=\"{:.0}\" y=\"{:.0}\" fill=\"{colour}\">{}</text>\n",
            WIDTH - RIGHT + 10.0,
            place.1 + 4.0,
            text(&line.name),
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where each line's name stands: at its end, but no two closer than a line of text.
fn labels(lines: &[Line], vertical: &Axis) -> Vec<(usize, f64)> {
    let ends = lines.iter().map(|line| line.points.last().map_or(TOP, |point| vertical.at(point.1)));
    let mut order: Vec<(usize, f64)> = ends.enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut above = f64::NEG_INFINITY;
    for (_, y) in &mut order {
        *y = y.max(above + 17.0);
        above = *y;
    }
    order.sort_by_key(|place| place.0);
    order
}

fn short(value: f64) -> String {
    match value {
        large if large >= 1e6 => format!("{}M", large / 1e6),
        large if large >= 1e3 => format!("{}k", large / 1e3),
        _ if value >= 1.0 => format!("{value}"),
        _ => number(value).trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

/// A logarithmic axis from one place of the drawing to another.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(0.0, f64::max);
        // A single point stands in the middle of something.
        let (low, high) = if low < high { (low, high) } else { (low.min(1.0) / 2.0, high.max(1.0) * 2.0) };
        Self { low: low.log10(), high: high.log10(), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value.log10() - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Round numbers that lie on it: 1, 2 and 5 of every power of ten, or the powers alone where those would be too many.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high - self.low > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        let all = decades.flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
        all.filter(|tick| (self.low - 1e-9..=self.high + 1e-9).contains(&tick.log10())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_on_the_axis() {
        let axis = Axis::of([0.25, 8.0].into_iter(), 0.0, 100.0);
        assert_eq!(axis.ticks().len(), 4, "{:?}", axis.ticks());
        assert!((axis.at(0.25) - 0.0).abs() < 1e-9 && (axis.at(8.0) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn names_do_not_lie_over_each_other() {
        let line = |y: f64| Line { name: String::new(), points: vec![(1.0, 1.0), (10.0, y)] };
        let lines = [line(5.0), line(5.01), line(100.0)];
        let axis = Axis::of(lines.iter().flat_map(|l| l.points.iter().map(|p| p.1)), 400.0, 50.0);
        let mut places: Vec<f64> = labels(&lines, &axis).iter().map(|place| place.1).collect();
        places.sort_by(f64::total_cmp);
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= 17.0 - 1e-9), "{places:?}");
    }

    #[test]
    fn one_point_is_no_division_by_zero() {
        let svg = growth("t", "x", "s", &[Line { name: "one".to_owned(), points: vec![(4.0, 2.0)] }]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
