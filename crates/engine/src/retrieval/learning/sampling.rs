//! Samples of distributions.

/// A sample of a Beta distribution, from two Gamma distributions.
pub(super) fn beta(chance: &mut fastrand::Rng, a: f64, b: f64) -> f64 {
    let (x, y) = (gamma(chance, a), gamma(chance, b));
    if x + y > 0.0 { x / (x + y) } else { a / (a + b) }
}

/// A sample of a Gamma distribution of scale 1, by Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables"
/// (2000).
fn gamma(chance: &mut fastrand::Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        let boost = (1.0 - chance.f64()).powf(1.0 / shape);
        return gamma(chance, shape + 1.0) * boost;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(chance);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - chance.f64()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// A sample of the normal distribution, by Box and Muller.
fn normal(chance: &mut fastrand::Rng) -> f64 {
    let (u, v) = (1.0 - chance.f64(), chance.f64());
    (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_the_mean_and_spread_of_their_distribution() {
        let mut chance = fastrand::Rng::with_seed(1);
        for (a, b) in [(0.5, 0.5), (1.0, 1.0), (8.0, 2.0), (30.0, 70.0)] {
            let samples: Vec<f64> = (0..20_000).map(|_| beta(&mut chance, a, b)).collect();
            let mean = samples.iter().sum::<f64>() / samples.len() as f64;
            let variance = samples.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / samples.len() as f64;
            let wanted = a * b / ((a + b).powi(2) * (a + b + 1.0));
            assert!((mean - a / (a + b)).abs() < 0.01, "Beta({a}, {b}): mean {mean}");
            assert!((variance - wanted).abs() < 0.1 * wanted, "Beta({a}, {b}): variance {variance}, not {wanted}");
        }
    }
}
