//! When each token of a text is said: the path through the attention of those heads that follow the sound, by dynamic time
//! warping (as in the program `whisper` of Radford et al., `timing.py`).

/// Frames on both sides whose median a frame becomes.
const MEDIAN_REACH: usize = 3;

/// The attention of one head: rows of tokens, columns of frames.
pub struct Head<'a> {
    pub scores: &'a [f32],
    pub columns: usize,
}

/// The frame in which each token of `rows` begins, by the mean of the heads over the first `frames` columns. Every head has
/// the same shape, and `frames` is at least 1 and at most its columns.
pub fn starts(heads: &[Head<'_>], frames: usize, rows: std::ops::Range<usize>) -> Vec<usize> {
    let mut mean = vec![0.0_f32; rows.len() * frames];
    for head in heads {
        let weights = normalised(head, frames);
        for (to, row) in mean.chunks_exact_mut(frames).zip(weights.chunks_exact(frames).skip(rows.start)) {
            for (to, from) in to.iter_mut().zip(median_filtered(row)) {
                *to += from;
            }
        }
    }
    path(&mean, frames)
}

/// The softmax of each row, then each column brought to mean 0 and deviation 1.
fn normalised(head: &Head<'_>, frames: usize) -> Vec<f32> {
    let mut weights = Vec::with_capacity(head.scores.len() / head.columns * frames);
    for row in head.scores.chunks_exact(head.columns) {
        let row = &row[..frames];
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers = row.iter().map(|score| (score - largest).exp());
        let sum: f32 = powers.clone().sum();
        weights.extend(powers.map(|power| power / sum));
    }
    let rows = (weights.len() / frames).max(1) as f32;
    let (mut sums, mut squares) = (vec![0.0_f32; frames], vec![0.0_f32; frames]);
    for row in weights.chunks_exact(frames) {
        sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight / rows);
    }
    for row in weights.chunks_exact(frames) {
        for ((square, mean), weight) in squares.iter_mut().zip(&sums).zip(row) {
            *square += (weight - mean) * (weight - mean) / rows;
        }
    }
    for row in weights.chunks_exact_mut(frames) {
        for ((weight, mean), square) in row.iter_mut().zip(&sums).zip(&squares) {
            *weight = if *square > 0.0 { (*weight - mean) / square.sqrt() } else { 0.0 };
        }
    }
    weights
}

/// Each number becomes the median of its neighbourhood; beyond the ends lies the mirror image.
fn median_filtered(row: &[f32]) -> Vec<f32> {
    if row.len() <= MEDIAN_REACH {
        return row.to_vec();
    }
    let before = row[1..=MEDIAN_REACH].iter().rev();
    let behind = row[row.len() - 1 - MEDIAN_REACH..row.len() - 1].iter().rev();
    let mirrored: Vec<f32> = before.chain(row).chain(behind).copied().collect();
    mirrored.array_windows().map(|near| median(*near)).collect()
}

/// The middle one of seven, by comparisons in pairs and without branches, so that the processor can do many at once.
fn median(mut near: [f32; 2 * MEDIAN_REACH + 1]) -> f32 {
    const PAIRS: [(usize, usize); 13] =
        [(0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4)];
    for (a, b) in PAIRS {
        let (x, y) = (near[a], near[b]);
        (near[a], near[b]) = if x < y { (x, y) } else { (y, x) };
    }
    near[MEDIAN_REACH]
}

/// The column where each row begins on the path of the largest sum from the first row and column to the last, going right,
/// down or both at each step.
fn path(gains: &[f32], columns: usize) -> Vec<usize> {
    let rows = gains.len() / columns;
    let at = |row: usize, column: usize| row * columns + column;
    // From where the best path comes: 0 both, 1 from above, 2 from the left.
    let mut from = vec![0_u8; gains.len()];
    let mut above = vec![f32::NEG_INFINITY; columns];
    for row in 0..rows {
        let mut current = vec![f32::NEG_INFINITY; columns];
        for column in 0..columns {
            let both = if column > 0 { above[column - 1] } else { f32::NEG_INFINITY };
            let left = if column > 0 { current[column - 1] } else { f32::NEG_INFINITY };
            let (best, way) = match (row, column) {
                (0, 0) => (0.0, 0),
                (0, _) => (left, 2),
                (_, 0) => (above[0], 1),
                _ if both >= above[column] && both >= left => (both, 0),
                _ if above[column] >= left => (above[column], 1),
                _ => (left, 2),
            };
            current[column] = best + gains[at(row, column)];
            from[at(row, column)] = way;
        }
        above = current;
    }
    let mut starts = vec![0; rows];
    let (mut row, mut column) = (rows.saturating_sub(1), columns - 1);
    while (row, column) != (0, 0) {
        starts[row] = column;
        let way = from[at(row, column)];
        row -= usize::from(way != 2);
        column -= usize::from(way != 1);
    }
    // The path begins in the first column.
    if let Some(first) = starts.first_mut() {
        *first = 0;
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_follows_the_attention() {
        // Three tokens over thirty frames, ten frames each.
        let scores: Vec<f32> = (0..90).map(|i| if i % 30 / 10 == i / 30 { 5.0 } else { 0.0 }).collect();
        let head = || Head { scores: &scores, columns: 30 };
        assert_eq!(starts(&[head(), head()], 30, 0..3), [0, 10, 20]);
        assert_eq!(starts(&[head()], 30, 1..3).len(), 2);
        assert_eq!(starts(&[head()], 1, 0..3), [0, 0, 0], "one frame has all tokens");
    }

    #[test]
    fn the_median_of_seven_is_the_middle_one() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let near: [f32; 7] = std::array::from_fn(|_| random.u8(..9).into());
            let mut sorted = near;
            sorted.sort_by(f32::total_cmp);
            assert_eq!(median(near).to_bits(), sorted[3].to_bits(), "{near:?}");
        }
    }

    #[test]
    fn a_single_peak_is_no_median() {
        assert_eq!(median_filtered(&[0.0, 0.0, 9.0, 0.0, 0.0]), [0.0; 5]);
        assert_eq!(median_filtered(&[1.0, 2.0, 3.0, 4.0, 5.0]), [3.0; 5]);
        assert_eq!(median_filtered(&[7.0, 1.0]), [7.0, 1.0]);
        assert_eq!(median_filtered(&[4.0, 1.0, 2.0, 3.0]), [2.0, 2.0, 2.0, 2.0]);
    }
}
