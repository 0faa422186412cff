//! What a line of text says.

use super::quad::{self, Quad};
use crate::onnx::PictureGraph;
use crate::vision::pixels::Pixels;
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use strata_model::{Error, Result};

/// Pixels of the height that lines are read in.
const HEIGHT: usize = 48;
/// Pixels of the width of a line, at least and at most; a longer one is squeezed.
const WIDTHS: (usize, usize) = (320, 3_200);
/// Pixels of the width of all lines of one batch together.
const BATCH_WIDTH: usize = 3_200;
/// A rectangle that is so many times higher than wide holds a line that runs from top to bottom.
const UPRIGHT: f32 = 1.5;

pub struct Recognizer {
    graph: PictureGraph,
    /// By class; the first is none.
    characters: Vec<String>,
}

/// A line, level and scaled: three planes of `HEIGHT` by `width` numbers from -1 to 1, blue first.
struct Strip {
    width: usize,
    data: Vec<f32>,
}

impl Recognizer {
    pub fn load(bytes: Vec<u8>, characters: &[u8]) -> Result<Self, String> {
        let graph = PictureGraph::load(bytes)?;
        let text = std::str::from_utf8(characters).map_err(|e| e.to_string())?;
        let known = text.lines().map(|line| line.trim_end_matches('\r').to_owned());
        let characters = [String::new()].into_iter().chain(known).chain([" ".to_owned()]).collect();
        Ok(Self { graph, characters })
    }

    /// The text in each rectangle, and how sure it is.
    pub fn read(&self, image: &Pixels, quads: &[Quad]) -> Result<Vec<(String, f32)>> {
        let mut strips: Vec<(usize, Strip)> = quads.iter().map(|quad| strip(image, quad)).enumerate().collect();
        // Lines of like width together, so that little is padding.
        strips.sort_by_key(|(_, strip)| strip.width);
        let mut read = vec![(String::new(), 0.0); quads.len()];
        let mut rest = &strips[..];
        while let Some((_, first)) = rest.first() {
            let mut count = 1;
            let fits = |count: usize| rest.get(count).is_some_and(|(_, s)| s.width * (count + 1) <= BATCH_WIDTH);
            while first.width <= BATCH_WIDTH && fits(count) {
                count += 1;
            }
            let (batch, after) = rest.split_at(count);
            for ((place, _), line) in batch.iter().zip(self.run(batch)?) {
                read[*place] = line;
            }
            rest = after;
        }
        Ok(read)
    }

    fn run(&self, batch: &[(usize, Strip)]) -> Result<Vec<(String, f32)>> {
        let width = batch.iter().map(|(_, strip)| strip.width).max().unwrap_or(0).max(WIDTHS.0);
        let mut data = vec![0.0_f32; batch.len() * 3 * HEIGHT * width];
        for (row, (_, strip)) in batch.iter().enumerate() {
            let planes = data[row * 3 * HEIGHT * width..].chunks_exact_mut(width);
            for (to, from) in planes.zip(strip.data.chunks_exact(strip.width)) {
                to[..strip.width].copy_from_slice(from);
            }
        }
        let output = self.graph.run(NdTensor::from_data([batch.len(), 3, HEIGHT, width], data))?;
        let &[rows, steps, classes] = output.shape() else {
            return Err(Error::internal(format!("the network reads a shape of {:?}", output.shape())));
        };
        if rows != batch.len() || classes != self.characters.len() {
            let known = self.characters.len();
            return Err(Error::internal(format!("the network has {classes} classes for {known} characters")));
        }
        let scores = output.to_vec();
        Ok(scores.chunks_exact(steps * classes).map(|line| self.decode(line, classes)).collect())
    }

    /// The likeliest class of each step; one that goes on over several steps counts once.
    fn decode(&self, line: &[f32], classes: usize) -> (String, f32) {
        let (mut text, mut sum, mut count, mut before) = (String::new(), 0.0, 0, 0);
        for step in line.chunks_exact(classes) {
            let (class, score) =
                step.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (class, score)| match *score > best.1 {
                    true => (class, *score),
                    false => best,
                });
            if class != 0 && class != before {
                text.push_str(&self.characters[class]);
                sum += score;
                count += 1;
            }
            before = class;
        }
        (text.trim().to_owned(), if count == 0 { 0.0 } else { sum / count as f32 })
    }
}

/// The part of an image in a rectangle, turned level, scaled to the height of a line.
fn strip(image: &Pixels, quad: &Quad) -> Strip {
    let (mut wide, mut high) = quad::size(quad);
    let mut corners = *quad;
    if high >= UPRIGHT * wide {
        // Turned to the left, so that what was the top comes first.
        corners = [quad[1], quad[2], quad[3], quad[0]];
        (wide, high) = (high, wide);
    }
    let width = ((wide / high.max(1.0) * HEIGHT as f32).ceil() as usize).clamp(8, WIDTHS.1);
    let mut data = vec![0.0; 3 * HEIGHT * width];
    // As many places are looked at in each direction as there are pixels, so that what is scaled down does not flicker.
    let steps = ((high / HEIGHT as f32).ceil() as usize).clamp(1, 8);
    let weight = 1.0 / (steps * steps) as f32;
    for y in 0..HEIGHT {
        for x in 0..width {
            let mut sum = [0.0; 3];
            for inner in 0..steps * steps {
                let at = |place: usize, inner: usize, size: usize| {
                    (place as f32 + (inner as f32 + 0.5) / steps as f32) / size as f32
                };
                let (right, down) = (at(x, inner % steps, width), at(y, inner / steps, HEIGHT));
                let place: [f32; 2] = std::array::from_fn(|axis| {
                    corners[0][axis]
                        + (corners[1][axis] - corners[0][axis]) * right
                        + (corners[3][axis] - corners[0][axis]) * down
                });
                let seen = sample(image, place);
                sum.iter_mut().zip(seen).for_each(|(sum, seen)| *sum += seen * weight);
            }
            for (channel, value) in sum.iter().rev().enumerate() {
                data[(channel * HEIGHT + y) * width + x] = value / 127.5 - 1.0;
            }
        }
    }
    Strip { width, data }
}

/// The colour at a place between pixels; beyond the edges that of the edge.
fn sample(image: &Pixels, [x, y]: [f32; 2]) -> [f32; 3] {
    let (x, y) = (x - 0.5, y - 0.5);
    let (left, top) = (x.floor(), y.floor());
    let (share_x, share_y) = (x - left, y - top);
    let pixel = |x: f32, y: f32| {
        let side = |place: f32, size: u32| (place.max(0.0) as usize).min(size as usize - 1);
        let at = (side(y, image.height()) * image.width() as usize + side(x, image.width())) * 3;
        [image.rgb()[at], image.rgb()[at + 1], image.rgb()[at + 2]].map(f32::from)
    };
    let [a, b, c, d] = [pixel(left, top), pixel(left + 1.0, top), pixel(left, top + 1.0), pixel(left + 1.0, top + 1.0)];
    std::array::from_fn(|channel| {
        let upper = a[channel] + (b[channel] - a[channel]) * share_x;
        let lower = c[channel] + (d[channel] - c[channel]) * share_x;
        upper + (lower - upper) * share_y
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn between_two_pixels_lies_their_mean() {
        let image = Pixels::new(2, 1, vec![0, 0, 0, 100, 100, 100]).unwrap();
        assert_eq!(sample(&image, [1.0, 0.5]), [50.0; 3]);
        assert_eq!(sample(&image, [-5.0, 9.0]), [0.0; 3]);
        assert_eq!(sample(&image, [9.0, 0.5]), [100.0; 3]);
    }

    #[test]
    fn a_strip_has_the_height_of_lines() {
        let image = Pixels::new(96, 96, vec![255; 96 * 96 * 3]).unwrap();
        let level = strip(&image, &[[0.0, 0.0], [96.0, 0.0], [96.0, 24.0], [0.0, 24.0]]);
        assert_eq!((level.width, level.data.len()), (192, 3 * 48 * 192));
        assert!(level.data.iter().all(|value| (*value - 1.0).abs() < 1e-6));
        let upright = strip(&image, &[[0.0, 0.0], [24.0, 0.0], [24.0, 96.0], [0.0, 96.0]]);
        assert_eq!(upright.width, 192);
    }
}
