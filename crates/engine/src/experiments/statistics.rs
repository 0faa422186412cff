//! What a difference between two retrievers says: paired tests and intervals over sessions.

/// The probability of a difference at least as large by chance, two-sided, by the paired t-test. `None` for fewer than two
/// differences.
pub fn paired_t_test(differences: &[f64]) -> Option<f64> {
    let count = differences.len() as f64;
    if differences.len() < 2 {
        return None;
    }
    let mean = mean(differences);
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (count - 1.0);
    if variance == 0.0 {
        return Some(if mean == 0.0 { 1.0 } else { 0.0 });
    }
    let t = mean / (variance / count).sqrt();
    let freedom = count - 1.0;
    Some(incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t)))
}

/// Draws that an interval is made from.
const RESAMPLES: usize = 2_000;

/// The interval that holds the mean with 95 percent, by the bootstrap with percentiles. `None` for fewer than two values.
pub fn bootstrap_interval(values: &[f64], seed: u64) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let mut chance = fastrand::Rng::with_seed(seed);
    let draw = |chance: &mut fastrand::Rng| {
        let sum: f64 = (0..values.len()).map(|_| values[chance.usize(..values.len())]).sum();
        sum / values.len() as f64
    };
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| draw(&mut chance)).collect();
    means.sort_by(f64::total_cmp);
    Some((quantile(&means, 0.025), quantile(&means, 0.975)))
}

/// 0 for nothing.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// A quantile of sorted values, interpolated linearly between neighbours; 0 of nothing.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = part * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// The regularized incomplete beta function, by the continued fraction of Lentz's method (Press et al., "Numerical
/// Recipes", 6.4).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    // The fraction settles quickly on one side of the mean only; the other follows from the symmetry.
    if x < (a + 1.0) / (a + b + 2.0) {
        (front * fraction(a, b, x) / a).clamp(0.0, 1.0)
    } else {
        (1.0 - front * fraction(b, a, 1.0 - x) / b).clamp(0.0, 1.0)
    }
}

fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut result = d;
    for step in 1..=500 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for part in [even, odd] {
            d = 1.0 / away(1.0 + part * d);
            c = away(1.0 + part / c);
            factor = c * d;
            result *= factor;
        }
        if (factor - 1.0).abs() < 1e-14 {
            break;
        }
    }
    result
}

/// The logarithm of the gamma function for positive numbers, by Lanczos' approximation.
fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        // Reflection keeps the approximation where it is good.
        return (std::f64::consts::PI / (std::f64::consts::PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let t = x + 7.5;
    let terms = COEFFICIENTS.iter().enumerate().map(|(i, c)| c / (x + i as f64 + 1.0));
    let sum = 0.999_999_999_999_809_9 + terms.sum::<f64>();
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(found: f64, wanted: f64, by: f64) {
        assert!((found - wanted).abs() < by, "{found} is not {wanted}");
    }

    #[test]
    fn the_t_test_gives_the_values_of_scipy() {
        // scipy.stats.ttest_1samp(values, 0).pvalue
        near(paired_t_test(&[0.1, 0.2, 0.3, 0.05, 0.15]).unwrap(), 0.020_475_874, 1e-8);
        near(paired_t_test(&[1.0, -1.0, 2.0, -2.0, 0.5]).unwrap(), 0.895_405_804, 1e-8);
        near(paired_t_test(&[0.01, 0.02]).unwrap(), 0.204_832_765, 1e-8);
        assert_eq!(paired_t_test(&[0.5]), None);
        assert_eq!(paired_t_test(&[0.0, 0.0]), Some(1.0));
        assert_eq!(paired_t_test(&[0.5, 0.5]), Some(0.0));
    }

    #[test]
    fn the_beta_function_is_known_where_it_is_simple() {
        near(incomplete_beta(1.0, 1.0, 0.3), 0.3, 1e-12);
        near(incomplete_beta(2.0, 1.0, 0.5), 0.25, 1e-12);
        near(incomplete_beta(5.0, 5.0, 0.5), 0.5, 1e-12);
        near(ln_gamma(5.0), 24f64.ln(), 1e-12);
        near(ln_gamma(0.5), std::f64::consts::PI.sqrt().ln(), 1e-12);
    }

    #[test]
    fn an_interval_holds_the_mean_and_repeats_with_its_seed() {
        let values: Vec<f64> = (0..100).map(|n| f64::from(n) / 100.0).collect();
        let (low, high) = bootstrap_interval(&values, 7).unwrap();
        assert!(low < 0.495 && 0.495 < high && high - low < 0.15, "{low} {high}");
        assert_eq!(bootstrap_interval(&values, 7), Some((low, high)));
        assert_eq!(bootstrap_interval(&[1.0], 7), None);
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 3.0], 0.25), 1.5);
        assert_eq!((quantile(&[], 0.5), quantile(&[7.0], 0.99)), (0.0, 7.0));
    }
}
