//! Where two fingerprints say the same: equal hashes vote for the offset that they stand at (as Wang, 2003, "An
//! Industrial-Strength Audio Search Algorithm", does with pairs of peaks); at the offsets with most votes the hashes are
//! compared bit by bit.

use crate::limits::{MAX_EQUAL_HASHES, MAX_MATCHES, MAX_OFFSETS};
use std::ops::Range;

/// Bits of a hash that must be equal for a vote; all of them seldom are.
const VOTING_BITS: u32 = 12;
/// Votes that an offset needs.
const MIN_VOTES: u32 = 2;
/// Hashes over which the number of different bits is averaged: two seconds.
const SMOOTHED: usize = 17;
/// Different bits of 32 on average, below which two parts are the same. By chance it is 16.
const MAX_DIFFERENT: f64 = 10.0;
/// Hashes of a part in common: a second and a half, made of four seconds of sound.
const MIN_ITEMS: usize = 12;
/// As many different hashes must be in it, since what stays the same, as silence does, is found everywhere.
const MIN_VARIETY: usize = 6;

/// A part that two fingerprints have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alignment {
    /// Its first hash in the first and in the second.
    pub start_a: usize,
    pub start_b: usize,
    /// Hashes.
    pub length: usize,
    /// Mean number of different bits of 32.
    pub different: f64,
}

/// The parts in common, the longest first. Of parts that overlap in both, the one that agrees in more is told.
pub fn alignments(a: &[u32], b: &[u32]) -> Vec<Alignment> {
    let mut found: Vec<Alignment> = offsets(a, b).into_iter().flat_map(|offset| common(a, b, offset)).collect();
    let agreement = |part: &Alignment| (16.0 - part.different) * part.length as f64;
    found.sort_by(|x, y| agreement(y).total_cmp(&agreement(x)));
    let mut told: Vec<Alignment> = Vec::new();
    for part in found {
        let overlap = |x: usize, y: usize, length: usize| x < y + length && y < x + part.length;
        let is_told = told.iter().any(|other| {
            overlap(part.start_a, other.start_a, other.length) && overlap(part.start_b, other.start_b, other.length)
        });
        if !is_told && told.len() < MAX_MATCHES {
            told.push(part);
        }
    }
    told.sort_by_key(|part| std::cmp::Reverse(part.length));
    told
}

/// Places in the second, less those in the first, at which most hashes are equal.
fn offsets(a: &[u32], b: &[u32]) -> Vec<isize> {
    let key = |item: u32| item >> (32 - VOTING_BITS);
    let mut places: Vec<Vec<u32>> = vec![Vec::new(); 1 << VOTING_BITS];
    for (at, item) in b.iter().enumerate() {
        places[key(*item) as usize].push(at as u32);
    }
    let mut votes = vec![0_u32; a.len() + b.len()];
    for (at, item) in a.iter().enumerate() {
        let equal = &places[key(*item) as usize];
        if equal.len() <= MAX_EQUAL_HASHES {
            equal.iter().for_each(|other| votes[*other as usize + a.len() - at] += 1);
        }
    }
    let is_peak = |at: usize| {
        let near = &votes[at.saturating_sub(1)..(at + 2).min(votes.len())];
        votes[at] >= MIN_VOTES && near.iter().all(|other| *other <= votes[at])
    };
    let mut peaks: Vec<usize> = (0..votes.len()).filter(|at| is_peak(*at)).collect();
    peaks.sort_by_key(|at| std::cmp::Reverse(votes[*at]));
    peaks.into_iter().take(MAX_OFFSETS).map(|at| at as isize - a.len() as isize).collect()
}

/// The parts in common at one offset.
fn common(a: &[u32], b: &[u32], offset: isize) -> Vec<Alignment> {
    let (start_a, start_b) = ((-offset).max(0) as usize, offset.max(0) as usize);
    let (a, b) = (&a[start_a..], &b[start_b..]);
    let different: Vec<f64> = a.iter().zip(b).map(|(a, b)| f64::from((a ^ b).count_ones())).collect();
    let mean = |part: Range<usize>| different[part.clone()].iter().sum::<f64>() / part.len().max(1) as f64;
    let around = |at: usize| at.saturating_sub(SMOOTHED / 2)..(at + SMOOTHED / 2 + 1).min(different.len());
    let is_same: Vec<bool> = (0..different.len()).map(|at| mean(around(at)) < MAX_DIFFERENT).collect();
    let (mut parts, mut at) = (Vec::new(), 0);
    for run in is_same.chunk_by(|x, y| x == y) {
        // The average reaches over both ends of a part.
        let mut part = at..at + run.len();
        at += run.len();
        while part.len() >= MIN_ITEMS && different[part.start] > MAX_DIFFERENT {
            part.start += 1;
        }
        while part.len() >= MIN_ITEMS && different[part.end - 1] > MAX_DIFFERENT {
            part.end -= 1;
        }
        if run[0] && part.len() >= MIN_ITEMS && variety(&a[part.clone()]) >= MIN_VARIETY {
            parts.push(Alignment {
                start_a: start_a + part.start,
                start_b: start_b + part.start,
                length: part.len(),
                different: mean(part),
            });
        }
    }
    parts
}

/// How many different hashes there are.
fn variety(items: &[u32]) -> usize {
    items.iter().collect::<std::collections::HashSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes without two alike.
    fn hashes(seed: u32, count: usize) -> Vec<u32> {
        let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        std::iter::successors(Some(seed), next).skip(1).take(count).map(|x| x ^ (x >> 15)).collect()
    }

    #[test]
    fn a_part_that_is_there_twice_is_told_twice() {
        let clip = hashes(7, 40);
        let recording = [hashes(1, 100), clip.clone(), hashes(2, 60), clip.clone(), hashes(3, 30)].concat();
        let mut found = alignments(&clip, &recording);
        found.sort_by_key(|part| part.start_b);
        let places: Vec<_> =
            found.iter().map(|part| (part.start_a, part.start_b, part.length, part.different)).collect();
        assert_eq!(places, [(0, 100, 40, 0.0), (0, 200, 40, 0.0)]);
    }

    #[test]
    fn nothing_in_common_is_not_told() {
        assert_eq!(alignments(&hashes(1, 500), &hashes(2, 400)), []);
        assert_eq!(alignments(&[], &hashes(2, 400)), []);
        assert_eq!(alignments(&hashes(2, 400), &[]), []);
    }

    #[test]
    fn what_stays_the_same_is_in_common_with_nothing_however_long() {
        let silence = vec![0x2a; 200_000];
        assert_eq!(alignments(&silence, &silence), []);
        assert_eq!(alignments(&silence[..100], &silence[..100]), []);
    }
}
