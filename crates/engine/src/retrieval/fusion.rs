//! Fusing several rankings into one.

use std::collections::HashMap;

/// The constant of reciprocal rank fusion, from Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms
/// Condorcet and individual Rank Learning Methods" (SIGIR 2009).
pub const RRF_K: f64 = 60.0;

/// How rankings become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fusion {
    /// The sum of `weight / (k + rank)`, ranks from 1.
    Rrf { k: f64 },
    /// The sum of `weight` times the score, rescaled so that three standard deviations around the mean of its ranking
    /// fill 0 to 1.
    Dbsf,
    /// The sum of `weight` times the raw score.
    Weighted,
    /// The largest `weight` times raw score.
    Max,
}

impl Default for Fusion {
    fn default() -> Self {
        Self::Rrf { k: RRF_K }
    }
}

impl Fusion {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rrf { .. } => "rrf",
            Self::Dbsf => "dbsf",
            Self::Weighted => "weighted",
            Self::Max => "max",
        }
    }
}

/// One ranking, best first, each document once.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    pub weight: f64,
    pub hits: Vec<(i64, f32)>,
}

/// A document's place in one ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Index of the ranking.
    pub ranking: usize,
    /// From 1.
    pub rank: usize,
    /// The raw score.
    pub score: f32,
    /// What the ranking adds to the fused score; of [`Fusion::Max`], what it would be alone.
    pub share: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Fused {
    pub seq: i64,
    pub score: f64,
    pub places: Vec<Place>,
}

/// Fuses rankings, best first. A lone ranking keeps its raw scores. Equal scores go by best rank, then by sequence
/// number, so that the same rankings always give the same list.
pub fn fuse(fusion: Fusion, rankings: &[Ranking]) -> Vec<Fused> {
    let mut fused: HashMap<i64, Fused> = HashMap::new();
    for (ranking, Ranking { weight, hits }) in rankings.iter().enumerate() {
        let scale = Scale::of(hits);
        for (position, (seq, score)) in hits.iter().enumerate() {
            let raw = f64::from(*score);
            let share = match fusion {
                _ if rankings.len() == 1 => raw,
                Fusion::Rrf { k } => weight / (k + position as f64 + 1.0),
                Fusion::Dbsf => weight * scale.place(raw),
                Fusion::Weighted | Fusion::Max => weight * raw,
            };
            let place = Place { ranking, rank: position + 1, score: *score, share };
            match fused.get_mut(seq) {
                None => {
                    fused.insert(*seq, Fused { seq: *seq, score: share, places: vec![place] });
                }
                Some(known) => {
                    known.score = if fusion == Fusion::Max { known.score.max(share) } else { known.score + share };
                    known.places.push(place);
                }
            }
        }
    }
    let mut list: Vec<Fused> = fused.into_values().collect();
    let best = |f: &Fused| f.places.iter().map(|p| p.rank).min();
    list.sort_by(|a, b| {
        b.score.total_cmp(&a.score).then_with(|| best(a).cmp(&best(b))).then_with(|| a.seq.cmp(&b.seq))
    });
    list
}

/// Distribution of the scores of one ranking.
struct Scale {
    low: f64,
    width: f64,
}

impl Scale {
    fn of(hits: &[(i64, f32)]) -> Self {
        let count = hits.len().max(1) as f64;
        let mean = hits.iter().map(|(_, s)| f64::from(*s)).sum::<f64>() / count;
        let variance = hits.iter().map(|(_, s)| (f64::from(*s) - mean).powi(2)).sum::<f64>() / count;
        let deviation = variance.sqrt();
        Self { low: mean - 3.0 * deviation, width: 6.0 * deviation }
    }
    fn place(&self, score: f64) -> f64 {
        if self.width <= f64::EPSILON { 0.5 } else { ((score - self.low) / self.width).clamp(0.0, 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(weight: f64, hits: &[(i64, f32)]) -> Ranking {
        Ranking { weight, hits: hits.to_vec() }
    }
    fn scores(fusion: Fusion, rankings: &[Ranking]) -> Vec<(i64, f64)> {
        fuse(fusion, rankings).into_iter().map(|f| (f.seq, (f.score * 1e6).round() / 1e6)).collect()
    }

    #[test]
    fn rrf_by_hand() {
        let rankings = [ranking(1.0, &[(1, 0.9), (2, 0.8), (3, 0.7)]), ranking(0.5, &[(3, 12.0), (1, 9.0)])];
        // 1: 1/61 + 0.5/62; 2: 1/62; 3: 1/63 + 0.5/61.
        assert_eq!(scores(Fusion::default(), &rankings), [(1, 0.024458), (3, 0.02407), (2, 0.016129)]);
        let third = &fuse(Fusion::default(), &rankings)[1];
        let places: Vec<_> = third.places.iter().map(|p| (p.ranking, p.rank, p.score)).collect();
        assert_eq!(places, [(0, 3, 0.7), (1, 1, 12.0)]);
        assert_eq!(third.places.iter().map(|p| p.share).sum::<f64>(), third.score);
    }

    #[test]
    fn weighted_max_and_dbsf_by_hand() {
        let rankings = [ranking(1.0, &[(1, 1.0), (2, 0.5)]), ranking(0.5, &[(2, 1.5), (3, 1.5)])];
        assert_eq!(scores(Fusion::Weighted, &rankings), [(2, 1.25), (1, 1.0), (3, 0.75)]);
        assert_eq!(scores(Fusion::Max, &rankings), [(1, 1.0), (2, 0.75), (3, 0.75)]);
        // Deviation 0.25 around 0.75: (1 - 0) / 1.5 and (0.5 - 0) / 1.5; equal scores sit in the middle.
        assert_eq!(scores(Fusion::Dbsf, &rankings), [(1, 0.666667), (2, 0.583333), (3, 0.25)]);
    }

    #[test]
    fn one_ranking_keeps_its_scores_and_none_is_empty() {
        assert_eq!(scores(Fusion::default(), &[ranking(0.5, &[(4, 0.5), (1, 0.25)])]), [(4, 0.5), (1, 0.25)]);
        assert_eq!(scores(Fusion::default(), &[]), []);
        assert_eq!(scores(Fusion::default(), &[ranking(1.0, &[]), ranking(1.0, &[(9, 2.0)])]), [(9, 0.016393)]);
    }

    #[test]
    fn ties_are_settled_the_same_way_every_time() {
        let rankings = [ranking(1.0, &[(5, 0.5), (6, 0.4)]), ranking(1.0, &[(6, 3.0), (5, 2.0)])];
        assert_eq!(fuse(Fusion::default(), &rankings).iter().map(|f| f.seq).collect::<Vec<_>>(), [5, 6]);
    }
}
