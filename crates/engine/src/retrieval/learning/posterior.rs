//! What arms got: the rewards of interactions, shared among those that found the document, as Beta distributions.

use super::{Arm, Credit, Event, Feedback, LearnedFusion};
use crate::retrieval::fusion::RRF_K;
use crate::times;

/// What an arm got.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Posterior {
    pub alpha: f64,
    pub beta: f64,
}

impl Posterior {
    pub(super) fn mean(self) -> f64 {
        self.alpha / (self.alpha + self.beta)
    }
}

/// A reward with the parts of the arms; they add up to 1.
pub(super) struct Rewarded<'f> {
    pub event: &'f Event,
    reward: f64,
    shares: Vec<f64>,
}

impl LearnedFusion {
    /// Interactions of the window that have a reward, with the arms' parts, and how many of them no arm is known for.
    pub(super) fn rewarded<'f>(
        &self,
        stage: &str,
        arms: &[Arm],
        feedback: &'f Feedback,
        now: i64,
    ) -> (Vec<Rewarded<'f>>, usize) {
        let (mut rewarded, mut skipped) = (Vec::new(), 0);
        for event in &feedback.events {
            let reward: f64 = event.kinds.iter().filter_map(|kind| self.rewards.get(kind)).sum();
            if reward == 0.0 || age_days(event, now) > self.decay_window_days {
                continue;
            }
            match shares(stage, arms, event) {
                Some(shares) => {
                    let reward = reward.clamp(-self.max_reward, self.max_reward);
                    rewarded.push(Rewarded { event, reward, shares });
                }
                None => skipped += 1,
            }
        }
        (rewarded, skipped)
    }

    pub(super) fn posteriors(&self, arms: usize, rewarded: &[&Rewarded<'_>], now: i64) -> Vec<Posterior> {
        let mut posteriors = vec![Posterior { alpha: self.prior_alpha, beta: self.prior_beta }; arms];
        for Rewarded { event, reward, shares } in rewarded.iter().copied() {
            let counted = reward.abs() * self.decay_factor.powf(age_days(event, now));
            for (posterior, share) in posteriors.iter_mut().zip(shares) {
                if *reward > 0.0 {
                    posterior.alpha += counted * share;
                    posterior.beta += counted * (1.0 - share);
                } else {
                    posterior.beta += counted * share;
                }
            }
        }
        posteriors
    }
}

fn age_days(event: &Event, now: i64) -> f64 {
    now.saturating_sub(event.at).max(0) as f64 / times::DAY as f64
}

/// The parts of the arms in an event; `None` where none of them is known to have found its document.
fn shares(stage: &str, arms: &[Arm], event: &Event) -> Option<Vec<f64>> {
    let of_search = |arm: &Arm| {
        let is_its = |c: &&Credit| *c.stage == *stage && c.search == arm.search && *c.feature == *arm.feature;
        event.found.iter().find(is_its).map_or(0.0, |credit| 1.0 / (RRF_K + f64::from(credit.rank)))
    };
    let named = |arm: &Arm| f64::from(event.feature_uri.as_deref() == Some(arm.feature.as_str()));
    let mut shares: Vec<f64> = arms.iter().map(of_search).collect();
    if shares.iter().sum::<f64>() == 0.0 {
        shares = arms.iter().map(named).collect();
    }
    let sum: f64 = shares.iter().sum();
    (sum > 0.0).then(|| shares.into_iter().map(|share| share / sum).collect())
}
