//! Weights from the distributions of the arms: what is known, and what is tried.

use super::posterior::Posterior;
use super::sampling::beta;
use super::{Algorithm, LearnedFusion};

impl LearnedFusion {
    pub(super) fn exploration(&self, interactions: usize) -> f64 {
        let decayed = self.exploration_bonus * self.exploration_decay.powf(interactions as f64);
        decayed.max(self.exploration_floor)
    }

    /// A weight for each arm, and whether another arm is the favourite than by the means.
    pub(super) fn weights(&self, posteriors: &[Posterior], exploration: f64, chance: u64) -> (Vec<f64>, bool) {
        let mut chance = fastrand::Rng::with_seed(chance);
        let means: Vec<f64> = posteriors.iter().map(|p| p.mean()).collect();
        let (scores, by_chance): (Vec<f64>, bool) = match self.algorithm {
            Algorithm::ThompsonSampling => {
                let sampled = |p: &Posterior| {
                    (p.mean() + exploration * (beta(&mut chance, p.alpha, p.beta) - p.mean())).clamp(0.0, 1.0)
                };
                (posteriors.iter().map(sampled).collect(), false)
            }
            Algorithm::EpsilonGreedy if chance.f64() < exploration => {
                (posteriors.iter().map(|_| chance.f64()).collect(), true)
            }
            Algorithm::EpsilonGreedy => (means.clone(), false),
            Algorithm::Ucb => {
                let own = |p: &Posterior| p.alpha + p.beta - self.prior_alpha - self.prior_beta;
                let all: f64 = posteriors.iter().map(own).sum();
                let bonus = |p: &Posterior| exploration * (2.0 * (1.0 + all).ln() / (1.0 + own(p))).sqrt();
                (posteriors.iter().map(|p| p.mean() + bonus(p)).collect(), false)
            }
        };
        let sum: f64 = scores.iter().sum();
        let part = |score: &f64| if sum > 0.0 { score / sum } else { 1.0 / scores.len() as f64 };
        let weights = scores.iter().map(|score| part(score).clamp(self.min_weight, self.max_weight)).collect();
        (weights, by_chance || favourite(&scores) != favourite(&means))
    }
}

/// The first of the largest.
fn favourite(values: &[f64]) -> Option<usize> {
    let best = values.iter().copied().reduce(f64::max)?;
    values.iter().position(|value| *value == best)
}
