//! The exponent of a power law.

/// The n of y = c · xⁿ by least squares of the logarithms. None for fewer than two different sizes.
pub(super) fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let mean_x = logs.iter().map(|p| p.0).sum::<f64>() / count;
    let mean_y = logs.iter().map(|p| p.1).sum::<f64>() / count;
    let spread: f64 = logs.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let together: f64 = logs.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    (spread > 1e-12).then(|| together / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_is_found() {
        for n in [0.0, 0.5, 1.0, 2.0] {
            let points: Vec<_> = [1.0, 2.0, 8.0, 100.0].iter().map(|x: &f64| (*x, 3.0 * x.powf(n))).collect();
            assert!((exponent(&points).unwrap() - n).abs() < 1e-9);
        }
    }

    #[test]
    fn one_size_has_no_exponent() {
        assert_eq!(exponent(&[]), None);
        assert_eq!(exponent(&[(4.0, 1.0), (4.0, 2.0)]), None);
    }
}
