//! Products of few rows with a matrix in half precision. What costs time there is to read the matrix, so it is kept in half the
//! bytes, in the order that it is read in; sums are in single precision.

use rayon::prelude::*;
use rten_simd::ops::{BitOps, Extend, NumOps};
use rten_simd::{Isa, Simd, SimdOp, f16};

/// Rows that are multiplied together; more do not fit into the processor's registers.
const MAX_ROWS: usize = 6;
/// Of a matrix with more numbers than this, threads share the columns.
const SHARED: usize = 1 << 18;
/// Numbers that a thread takes at once, at least.
const SHARE: usize = 1 << 17;

/// A matrix, perhaps with a bias for each column.
pub struct Half {
    depth: usize,
    columns: usize,
    /// Groups of as many columns as two of the processor's vectors hold, each `[depth, group]`; zeros follow the last column.
    data: Vec<f16>,
    group: usize,
    bias: Option<Vec<f32>>,
}

impl Half {
    /// A matrix of `depth` rows whose numbers `at` tells by row and column.
    pub fn new(depth: usize, columns: usize, bias: Option<Vec<f32>>, at: impl Fn(usize, usize) -> f32) -> Self {
        let group = 2 * Lanes.dispatch();
        let mut data = vec![f16::default(); columns.div_ceil(group) * group * depth];
        for (number, of_group) in data.chunks_exact_mut((group * depth).max(1)).enumerate() {
            let first = number * group;
            for (row, numbers) in of_group.chunks_exact_mut(group).enumerate() {
                for (number, column) in numbers.iter_mut().zip(first..columns) {
                    *number = f16::from_f32(at(row, column));
                }
            }
        }
        Self { depth, columns, data, group, bias }
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Writes the product of `left`, `[rows, depth]`, with the matrix.
    pub fn multiply(&self, left: &[f32], to: &mut [f32]) {
        let rows = left.len() / self.depth;
        let left = interleaved(left, self.depth);
        if self.data.len() < SHARED || rayon::current_num_threads() < 2 {
            let to = to.chunks_exact_mut(self.columns).collect();
            return self.part(&left, rows, 0, to);
        }
        let share = (SHARE / self.depth).next_multiple_of(self.group);
        let mut parts: Vec<Vec<&mut [f32]>> = Vec::new();
        for row in to.chunks_exact_mut(self.columns) {
            for (part, columns) in row.chunks_mut(share).enumerate() {
                match parts.get_mut(part) {
                    Some(of_part) => of_part.push(columns),
                    None => parts.push(vec![columns]),
                }
            }
        }
        parts.into_par_iter().enumerate().for_each(|(part, to)| self.part(&left, rows, part * share, to));
    }

    /// Some columns of the product, from the group that begins with `first` on.
    fn part(&self, left: &[f32], rows: usize, first: usize, to: Vec<&mut [f32]>) {
        let columns = to.first().map_or(0, |row| row.len());
        let groups = &self.data[first * self.depth..];
        let groups = &groups[..columns.next_multiple_of(self.group) * self.depth];
        let bias = self.bias.as_ref().map(|bias| &bias[first..first + columns]);
        Part { groups, depth: self.depth, left, rows, bias, to }.dispatch();
    }
}

/// Numbers in half precision that a vector of the processor holds.
struct Lanes;

impl SimdOp for Lanes {
    type Output = usize;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> usize {
        isa.f16().len()
    }
}

/// Tiles of at most [`MAX_ROWS`] rows, in each the rows' first numbers, then their second, and so on.
fn interleaved(left: &[f32], depth: usize) -> Vec<f32> {
    let mut all = Vec::with_capacity(left.len());
    for tile in left.chunks(MAX_ROWS * depth) {
        for number in 0..depth {
            all.extend(tile.iter().skip(number).step_by(depth));
        }
    }
    all
}

struct Part<'a> {
    groups: &'a [f16],
    depth: usize,
    left: &'a [f32],
    rows: usize,
    bias: Option<&'a [f32]>,
    to: Vec<&'a mut [f32]>,
}

impl SimdOp for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let lanes = isa.f16().len();
        for (number, group) in self.groups.chunks_exact(2 * lanes * self.depth).enumerate() {
            let first = number * 2 * lanes;
            let left = self.left.chunks(MAX_ROWS * self.depth);
            for (left, to) in left.zip(self.to.chunks_mut(MAX_ROWS)) {
                let at = Place { group, bias: self.bias, first };
                // Two vectors of few rows at once, so that no sum waits for the one before.
                match to.len() {
                    1 => columns::<I, 1, 2>(isa, &at, 0, left, to),
                    2 => columns::<I, 2, 2>(isa, &at, 0, left, to),
                    3 => columns::<I, 3, 2>(isa, &at, 0, left, to),
                    4 => [0, lanes].into_iter().for_each(|from| columns::<I, 4, 1>(isa, &at, from, left, to)),
                    5 => [0, lanes].into_iter().for_each(|from| columns::<I, 5, 1>(isa, &at, from, left, to)),
                    _ => [0, lanes].into_iter().for_each(|from| columns::<I, 6, 1>(isa, &at, from, left, to)),
                }
            }
        }
        debug_assert_eq!(self.rows, self.to.len());
    }
}

/// A group of columns.
struct Place<'a> {
    group: &'a [f16],
    bias: Option<&'a [f32]>,
    first: usize,
}

/// The product of `ROWS` rows with `VECTORS` vectors of a group, from its column `from` on.
#[inline(always)]
fn columns<I: Isa, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    at: &Place,
    from: usize,
    left: &[f32],
    to: &mut [&mut [f32]],
) {
    let (ops, halves) = (isa.f32(), isa.f16());
    let lanes = halves.len();
    let mut low = [[ops.zero(); VECTORS]; ROWS];
    let mut high = [[ops.zero(); VECTORS]; ROWS];
    let (left, _) = left.as_chunks::<ROWS>();
    for (left, numbers) in left.iter().zip(at.group.chunks_exact(2 * lanes)) {
        for vector in 0..VECTORS {
            let half = halves.load(&numbers[from + vector * lanes..]);
            let (first, second) = (halves.extend_low(half), halves.extend_high(half));
            for row in 0..ROWS {
                let number = ops.splat(left[row]);
                low[row][vector] = ops.mul_add(number, first, low[row][vector]);
                high[row][vector] = ops.mul_add(number, second, high[row][vector]);
            }
        }
    }
    let width = ops.len();
    for (row, to) in to.iter_mut().enumerate().take(ROWS) {
        for vector in 0..VECTORS {
            for (part, sums) in [low[row][vector], high[row][vector]].into_iter().enumerate() {
                let first = at.first + from + vector * lanes + part * width;
                let Some(to) = to.get_mut(first..) else { continue };
                let bias = at.bias.map(|bias| &bias[first..]);
                if to.len() >= width {
                    let sums = bias.map_or(sums, |bias| ops.add(sums, ops.load(bias)));
                    ops.store(sums, to);
                } else {
                    for (at, (to, sum)) in to.iter_mut().zip(sums.to_array()).enumerate() {
                        *to = sum + bias.map_or(0.0, |bias| bias[at]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_that_of_the_matrix_for_any_number_of_rows_and_columns() {
        let numbers = |count: usize| (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0).collect::<Vec<f32>>();
        for (depth, columns) in [(1, 1), (7, 33), (64, 1_500), (384, 1_200)] {
            let matrix = numbers(depth * columns);
            let bias = numbers(columns);
            let half = Half::new(depth, columns, Some(bias.clone()), |row, column| matrix[row * columns + column]);
            for rows in 1..=MAX_ROWS + 3 {
                let left = numbers(rows * depth);
                let mut found = vec![0.0; rows * columns];
                half.multiply(&left, &mut found);
                for (place, found) in found.iter().enumerate() {
                    let (row, column) = (place / columns, place % columns);
                    let product = |at: usize| left[row * depth + at] * matrix[at * columns + column];
                    let sum = (0..depth).map(product).sum::<f32>() + bias[column];
                    assert!((found - sum).abs() < 1e-3, "{rows} rows, {depth} by {columns}: {found} {sum}");
                }
            }
        }
    }
}
