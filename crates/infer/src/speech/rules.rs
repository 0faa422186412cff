//! Which token may follow: the rules of Whisper's decoder for times and silence, and the choice of the next token.

use crate::speech::vocabulary::TIMES;

/// The latest time that the first word of a window may have, in steps of 20 ms.
const MAX_FIRST_TIME: u32 = 50;

/// Tokens by what they are.
#[derive(Debug, Clone)]
pub struct Kinds {
    /// Ends the text. All below are text.
    pub end: u32,
    /// The last token before the times.
    pub without_times: u32,
    pub no_speech: u32,
    pub never: Vec<u32>,
    pub never_first: Vec<u32>,
}

impl Kinds {
    /// The time of a token in steps of 20 ms, if it is one.
    pub fn time(&self, token: u32) -> Option<u32> {
        token.checked_sub(self.without_times + 1).filter(|time| *time < TIMES)
    }

    fn first_time(&self) -> usize {
        self.without_times as usize + 1
    }

    /// Sets the logits of tokens to minus infinity that may not follow `told`, the tokens since the prompt.
    pub fn restrict(&self, logits: &mut [f32], told: &[u32]) {
        let first_time = self.first_time();
        forbid_each(logits, &self.never);
        if told.is_empty() {
            forbid_each(logits, &self.never_first);
            logits[..first_time].fill(f32::NEG_INFINITY);
            logits[first_time + MAX_FIRST_TIME as usize + 1..].fill(f32::NEG_INFINITY);
            return;
        }
        let is_time = |back: usize| told.len().checked_sub(back).is_none_or(|place| self.time(told[place]).is_some());
        let (last, before) = (is_time(1), is_time(2));
        if last && before {
            logits[first_time..].fill(f32::NEG_INFINITY);
        } else if last {
            logits[..self.end as usize].fill(f32::NEG_INFINITY);
        }
        if let Some(time) = told.iter().rev().find_map(|token| self.time(*token)) {
            // Times do not go back, and a segment takes time.
            let least = first_time + time as usize + usize::from(!last || before);
            let end = least.min(logits.len());
            logits[first_time..end].fill(f32::NEG_INFINITY);
        }
        let all_times = log_sum(&logits[first_time..]);
        let best_text = logits[..first_time].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if all_times > best_text {
            logits[..first_time].fill(f32::NEG_INFINITY);
        }
    }
}

fn forbid_each(logits: &mut [f32], tokens: &[u32]) {
    for token in tokens {
        logits[*token as usize] = f32::NEG_INFINITY;
    }
}

/// The logarithm of the sum of the exponentials.
pub fn log_sum(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return largest;
    }
    largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f32>().ln()
}

/// The likeliest token, or at a temperature above 0 a random one by its likelihood, and the logarithm of its probability.
/// `None` where no token may follow.
pub fn choose(logits: &[f32], temperature: f32, random: &mut fastrand::Rng) -> Option<(u32, f32)> {
    let (best, largest) = (0_u32..)
        .zip(logits)
        .fold((0, f32::NEG_INFINITY), |best, (token, logit)| if *logit > best.1 { (token, *logit) } else { best });
    if !largest.is_finite() {
        return None;
    }
    let token = if temperature > 0.0 { sample(logits, largest, temperature, random) } else { best };
    Some((token, logits[token as usize] - log_sum(logits)))
}

fn sample(logits: &[f32], largest: f32, temperature: f32, random: &mut fastrand::Rng) -> u32 {
    let weight = |logit: &f32| ((logit - largest) / temperature).exp();
    let mut rest = random.f32() * logits.iter().map(weight).sum::<f32>();
    let mut last = 0;
    for (token, logit) in (0_u32..).zip(logits) {
        let weight = weight(logit);
        if weight > 0.0 {
            last = token;
            rest -= weight;
            if rest <= 0.0 {
                break;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Text 0 to 9, end 10, silence 11, no times 12, times from 13 on.
    fn kinds() -> Kinds {
        Kinds { end: 10, without_times: 12, no_speech: 11, never: vec![11, 12], never_first: vec![10] }
    }

    fn allowed(told: &[u32], logits: impl Fn(u32) -> f32) -> Vec<u32> {
        let kinds = kinds();
        let mut logits: Vec<f32> = (0..13 + TIMES).map(logits).collect();
        kinds.restrict(&mut logits, told);
        (0..13 + TIMES).filter(|token| logits[*token as usize].is_finite()).collect()
    }

    #[test]
    fn a_text_starts_with_a_time_of_the_first_second() {
        assert_eq!(allowed(&[], |_| 0.0), (13..=63).collect::<Vec<_>>());
    }

    #[test]
    fn after_a_start_comes_text_and_after_an_end_another_start_or_nothing() {
        assert_eq!(allowed(&[13], |token| if token < 13 { 9.0 } else { 0.0 }), (0..=10).collect::<Vec<_>>());
        let after_end = allowed(&[13, 1, 20], |token| if token == 10 { 9.0 } else { 0.0 });
        assert_eq!((after_end[0], after_end[1]), (10, 20), "the end, or a start that is not earlier");
        let after_text = allowed(&[13, 1], |token| if token < 13 { 9.0 } else { 0.0 });
        assert_eq!((after_text[0], after_text[10], after_text[11]), (0, 10, 14), "a segment takes time");
    }

    #[test]
    fn a_time_is_forced_where_times_together_are_likelier_than_any_text() {
        assert_eq!(allowed(&[13, 1], |_| 0.0)[0], 14);
    }

    #[test]
    fn the_likeliest_is_chosen_or_one_by_its_likelihood() {
        let mut random = fastrand::Rng::with_seed(1);
        let logits = [0.0, f32::NEG_INFINITY, 1.0];
        let (token, log_probability) = choose(&logits, 0.0, &mut random).unwrap();
        assert_eq!(token, 2);
        assert!((log_probability.exp() - 0.731).abs() < 1e-3);
        let twos = (0..1_000).filter(|_| choose(&logits, 1.0, &mut random).unwrap().0 == 2).count();
        assert!((680..780).contains(&twos), "{twos}");
        assert_eq!(choose(&[f32::NEG_INFINITY; 3], 0.0, &mut random), None);
        assert_eq!(choose(&[f32::NAN; 3], 0.0, &mut random), None);
    }
}
