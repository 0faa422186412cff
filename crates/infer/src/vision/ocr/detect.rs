//! Where lines of text are.

use super::quad::{self, Quad};
use crate::onnx::PictureGraph;
use crate::vision::pixels::Pixels;
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use strata_model::{Error, Result};

/// Pixels of the shorter side that an image is brought to where it has fewer, and of the longer side at most.
const SHORT_SIDE: f32 = 736.0;
const LONG_SIDE: f32 = 2_000.0;
/// The network halves its maps five times.
const STEP: f32 = 32.0;
/// How likely a pixel must be text, and a whole line on average.
const PIXEL: f32 = 0.3;
const LINE: f32 = 0.5;
/// The network sees the middle of letters: how much further lines reach, as a share of area by circumference.
const REACH: f32 = 1.6;
/// Lines of one image.
const MAX_LINES: usize = 1_000;
/// Pixels of the shorter side of a line, before and after it was widened.
const MIN_SIDE: f32 = 3.0;

pub struct Detector(PictureGraph);

/// How likely each pixel is text.
struct Map {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Detector {
    pub fn load(bytes: Vec<u8>) -> Result<Self, String> {
        PictureGraph::load(bytes).map(Self)
    }

    /// Boxes around the lines of an image, in its pixels.
    pub fn find(&self, image: &Pixels) -> Result<Vec<Quad>> {
        let (width, height) = seen_size(image.width(), image.height());
        let whole = [0.0, 0.0, f64::from(image.width()), f64::from(image.height())];
        let seen = image.resized(whole, width, height)?;
        let map = self.look(&seen)?;
        let scale = [image.width() as f32 / width as f32, image.height() as f32 / height as f32];
        let quads = lines(&map).into_iter().map(|quad| quad.map(|[x, y]| [x * scale[0], y * scale[1]]));
        Ok(quads.collect())
    }

    fn look(&self, image: &Pixels) -> Result<Map> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let plane = width * height;
        let mut data = vec![0.0_f32; plane * 3];
        for (at, pixel) in image.rgb().chunks_exact(3).enumerate() {
            // The network was trained on blue, green and red.
            for (channel, value) in pixel.iter().rev().enumerate() {
                data[channel * plane + at] = f32::from(*value) / 127.5 - 1.0;
            }
        }
        let output = self.0.run(NdTensor::from_data([1, 3, height, width], data))?;
        if output.shape() != [1, 1, height, width] {
            return Err(Error::internal(format!("the network sees a map of {:?}", output.shape())));
        }
        Ok(Map { width, height, values: output.to_vec() })
    }
}

/// The size that an image is looked at in: multiples of 32 a side.
fn seen_size(width: u32, height: u32) -> (u32, u32) {
    let (wide, high) = (width as f32, height as f32);
    let up = (SHORT_SIDE / wide.min(high)).max(1.0);
    let scale = up.min(LONG_SIDE / wide.max(high));
    let side = |side: f32| ((side * scale / STEP).round() * STEP).max(STEP) as u32;
    (side(wide), side(high))
}

/// The lines of a map, in its pixels.
fn lines(map: &Map) -> Vec<Quad> {
    let is_text: Vec<bool> = grown(map);
    let mut seen = vec![false; is_text.len()];
    let mut quads = Vec::new();
    for start in 0..is_text.len() {
        if !is_text[start] || seen[start] || quads.len() >= MAX_LINES {
            continue;
        }
        let (edge, sum, count) = component(map, &is_text, &mut seen, start);
        let Some(quad) = quad::around(&edge) else { continue };
        let (width, height) = quad::size(&quad);
        if width.min(height) < MIN_SIDE || sum / (count.max(1) as f32) < LINE {
            continue;
        }
        let out = width * height * REACH / (2.0 * (width + height));
        let quad = quad::widened(&quad, out);
        let (width, height) = quad::size(&quad);
        if width.min(height) >= MIN_SIDE + 2.0 {
            quads.push(quad);
        }
    }
    quads
}

/// Which pixels are text, each together with its neighbours to the right and below, so that thin gaps close.
fn grown(map: &Map) -> Vec<bool> {
    let mut text = vec![false; map.values.len()];
    for (at, value) in map.values.iter().enumerate() {
        if *value > PIXEL {
            let (x, y) = (at % map.width, at / map.width);
            for (right, down) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                if x + right < map.width && y + down < map.height {
                    text[at + right + down * map.width] = true;
                }
            }
        }
    }
    text
}

/// The pixels that hang together with one: those at the edge, the sum of the likelihoods of those that are text, and how
/// many these are.
fn component(map: &Map, is_text: &[bool], seen: &mut [bool], start: usize) -> (Vec<[f32; 2]>, f32, usize) {
    let (mut edge, mut sum, mut count) = (Vec::new(), 0.0, 0);
    let mut waiting = vec![start];
    seen[start] = true;
    while let Some(at) = waiting.pop() {
        let (x, y) = (at % map.width, at / map.width);
        if map.values[at] > PIXEL {
            sum += map.values[at];
            count += 1;
        }
        let mut is_edge = x == 0 || y == 0 || x + 1 == map.width || y + 1 == map.height;
        for near_y in y.saturating_sub(1)..(y + 2).min(map.height) {
            for near_x in x.saturating_sub(1)..(x + 2).min(map.width) {
                let near = near_y * map.width + near_x;
                if !is_text[near] {
                    is_edge = true;
                } else if !seen[near] {
                    seen[near] = true;
                    waiting.push(near);
                }
            }
        }
        if is_edge {
            edge.push([x as f32, y as f32]);
        }
    }
    (edge, sum, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_seen_in_steps_of_32_pixels() {
        assert_eq!(seen_size(1000, 800), (992, 800));
        assert_eq!(seen_size(368, 368), (736, 736));
        assert_eq!(seen_size(10_000, 100), (2016, 32));
    }

    #[test]
    fn what_hangs_together_is_a_line() {
        let (width, height) = (64, 40);
        let mut values = vec![0.0; width * height];
        let mut fill = |x: std::ops::Range<usize>, y: std::ops::Range<usize>, value: f32| {
            y.for_each(|y| x.clone().for_each(|x| values[y * width + x] = value));
        };
        fill(5..40, 5..11, 0.9);
        fill(5..40, 25..31, 0.4);
        fill(50..52, 30..32, 0.9);
        let found = lines(&Map { width, height, values });
        assert_eq!(found.len(), 1, "one is too faint, one too small: {found:?}");
        let (wide, high) = quad::size(&found[0]);
        assert!(wide > 40.0 && (10.0..20.0).contains(&high), "{wide} {high}");
    }
}
