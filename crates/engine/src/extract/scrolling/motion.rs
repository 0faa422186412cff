//! Bands of a picture that move steadily: each frame is cut into strips, and how far a strip has moved since the frame before
//! is where the profile of its edges fits best.

use strata_media::Picture;

/// Along which axis a band moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// To the left or right: tickers.
    Horizontal,
    /// Up or down: credits.
    Vertical,
}

/// A part of the picture that moves.
#[derive(Debug, Clone, PartialEq)]
pub struct Band {
    pub axis: Axis,
    /// Pixels from the top for a horizontal band, from the left for a vertical one.
    pub start: u32,
    pub end: u32,
    /// Pixels that it moves between two frames: right and down are positive.
    pub shift: f32,
    /// Share of the frames in which it moves so.
    pub consistency: f32,
    /// How far it has moved since the first frame, frame by frame.
    pub travelled: Vec<f32>,
}

/// What decides whether a strip moves.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub strip_height: u32,
    /// Pixels between two frames, at least.
    pub min_shift: f32,
    pub consistency: f32,
}

/// Largest movement between two frames that is looked for, as a share of the picture's side.
const REACH: f32 = 0.12;
/// How well a moved profile must fit, and how much better than the one that stayed.
const FIT: f32 = 0.6;
const BETTER: f32 = 0.1;
/// Difference of brightness, on average over a strip, under which there is nothing that could move.
const LEAST_EDGE: f32 = 1.0;

/// The profiles of one frame: by axis, by strip.
pub struct Profiles {
    horizontal: Vec<Vec<f32>>,
    vertical: Vec<Vec<f32>>,
}

impl Profiles {
    /// The mean change of brightness along each strip: rows of `strip` pixels for movements to the side, columns for those
    /// up and down.
    pub fn of(picture: &Picture, strip: u32) -> Self {
        let (width, height) = (picture.width as usize, picture.height as usize);
        let light: Vec<f32> = picture
            .bytes
            .chunks_exact(3)
            .map(|p| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]))
            .collect();
        let strip = strip.max(1) as usize;
        let mut horizontal = vec![vec![0.0; width]; height.div_ceil(strip)];
        let mut vertical = vec![vec![0.0; height]; width.div_ceil(strip)];
        for y in 1..height {
            for x in 1..width {
                let at = y * width + x;
                horizontal[y / strip][x] += (light[at] - light[at - 1]).abs() / strip as f32;
                vertical[x / strip][y] += (light[at] - light[at - width]).abs() / strip as f32;
            }
        }
        Self { horizontal, vertical }
    }
}

/// Gathers the movements of all strips, frame by frame.
pub struct Watcher {
    settings: Settings,
    before: Option<Profiles>,
    /// By strip, frame by frame: how far it has moved.
    horizontal: Vec<Vec<f32>>,
    vertical: Vec<Vec<f32>>,
}

impl Watcher {
    pub fn new(settings: Settings) -> Self {
        Self { settings, before: None, horizontal: Vec::new(), vertical: Vec::new() }
    }

    pub fn see(&mut self, picture: &Picture) {
        let now = Profiles::of(picture, self.settings.strip_height);
        if let Some(before) = &self.before {
            let note = |to: &mut Vec<Vec<f32>>, before: &[Vec<f32>], now: &[Vec<f32>]| {
                to.resize(now.len(), Vec::new());
                for ((to, before), now) in to.iter_mut().zip(before).zip(now) {
                    to.push(shift(before, now));
                }
            };
            note(&mut self.horizontal, &before.horizontal, &now.horizontal);
            note(&mut self.vertical, &before.vertical, &now.vertical);
        }
        self.before = Some(now);
    }

    /// The bands that move steadily; neighbouring strips that move alike are one.
    pub fn bands(&self, width: u32, height: u32) -> Vec<Band> {
        let mut bands = self.along(Axis::Horizontal, &self.horizontal, height);
        bands.extend(self.along(Axis::Vertical, &self.vertical, width));
        bands
    }

    fn along(&self, axis: Axis, strips: &[Vec<f32>], side: u32) -> Vec<Band> {
        let Settings { strip_height, min_shift, consistency } = self.settings;
        let mut bands: Vec<Band> = Vec::new();
        for (place, shifts) in strips.iter().enumerate() {
            let (start, end) = (place as u32 * strip_height, ((place as u32 + 1) * strip_height).min(side));
            let moving: Vec<f32> = shifts.iter().copied().filter(|shift| shift.abs() >= min_shift).collect();
            let forward = moving.iter().filter(|shift| **shift > 0.0).count();
            let steady = forward.max(moving.len() - forward);
            let share = steady as f32 / shifts.len().max(1) as f32;
            if steady < 2 || share < consistency {
                continue;
            }
            let sign = if forward * 2 > moving.len() { 1.0 } else { -1.0 };
            let mut along: Vec<f32> = moving.into_iter().filter(|shift| shift * sign > 0.0).collect();
            along.sort_by(f32::total_cmp);
            let median = along[along.len() / 2];
            let mut sum = 0.0;
            // Where it was not seen to move, it has moved as it does.
            let step = |shift: &f32| {
                sum += if shift * sign > 0.0 { *shift } else { median };
                sum
            };
            let travelled = [0.0].into_iter().chain(shifts.iter().map(step).collect::<Vec<_>>()).collect();
            match bands.last_mut() {
                Some(last) if last.end == start && (last.shift - median).abs() <= last.shift.abs() * 0.25 + 1.0 => {
                    last.end = end;
                    last.consistency = last.consistency.max(share);
                }
                _ => bands.push(Band { axis, start, end, shift: median, consistency: share, travelled }),
            }
        }
        bands
    }
}

/// How far `now` lies from `before`, by the best fit of their profiles; 0 where nothing fits better than standing still.
fn shift(before: &[f32], now: &[f32]) -> f32 {
    let mean = |profile: &[f32]| profile.iter().sum::<f32>() / profile.len().max(1) as f32;
    if mean(before) < LEAST_EDGE || mean(now) < LEAST_EDGE {
        return 0.0;
    }
    let reach = ((now.len() as f32 * REACH) as isize).max(1);
    let still = fit(before, now, 0);
    let (best, by) = (-reach..=reach)
        .map(|by| (fit(before, now, by), by))
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.abs().cmp(&a.1.abs())))
        .unwrap_or((0.0, 0));
    if best < FIT || best < still + BETTER { 0.0 } else { by as f32 }
}

/// The correlation of `before`, moved by so many pixels, with `now`.
fn fit(before: &[f32], now: &[f32], by: isize) -> f32 {
    let length = now.len() - by.unsigned_abs().min(now.len());
    let (from, to) = (by.min(0).unsigned_abs(), by.max(0).unsigned_abs());
    let (a, b) = (&before[from..from + length], &now[to..to + length]);
    let mean = |part: &[f32]| part.iter().sum::<f32>() / length.max(1) as f32;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut both, mut of_a, mut of_b) = (0.0_f32, 0.0_f32, 0.0_f32);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        both += x * y;
        of_a += x * x;
        of_b += y * y;
    }
    if of_a <= 0.0 || of_b <= 0.0 { 0.0 } else { both / (of_a * of_b).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stripes of chance brightness that lie `offset` pixels to the left, in the lower half; the upper half stands still.
    fn frame(offset: usize) -> Picture {
        let bright = |seed: usize| (seed.wrapping_mul(2_654_435_761) >> 7) as u8;
        let (width, height) = (200, 80);
        let bytes =
            (0..height).flat_map(|y| (0..width).flat_map(move |x| [bright(if y < 40 { x } else { x + offset }); 3]));
        Picture::rgb8(width as u32, height as u32, bytes.collect()).unwrap()
    }

    #[test]
    fn a_band_that_moves_is_found_and_one_that_stands_is_not() {
        let mut watcher = Watcher::new(Settings { strip_height: 20, min_shift: 2.0, consistency: 0.6 });
        (0..8).for_each(|n| watcher.see(&frame(n * 5)));
        let bands = watcher.bands(200, 80);
        assert_eq!(bands.len(), 1, "{bands:?}");
        let band = &bands[0];
        assert_eq!((band.axis, band.start, band.end, band.shift), (Axis::Horizontal, 40, 80, -5.0));
        assert_eq!(band.travelled.last(), Some(&-35.0));
    }
}
