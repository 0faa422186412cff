//! Turning, scaling and moving a part of an image, so that points in it come to lie where they should.

use crate::vision::pixels::Pixels;
use strata_model::Result;

/// A point of an image in pixels, from the top left corner.
pub type Point = [f32; 2];

/// A rotation, a scale and a move: `(x, y)` to `(a x - b y + c, b x + a y + d)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    a: f32,
    b: f32,
    c: f32,
    d: f32,
}

impl Similarity {
    /// The one that brings the points `from` nearest to `to` in the sum of squares (Umeyama, 1991, in two dimensions and
    /// without mirroring). `None` where the points are all one.
    pub fn between(from: &[Point], to: &[Point]) -> Option<Self> {
        let middle = |points: &[Point]| {
            let sum = points.iter().fold([0.0, 0.0], |sum, point| [sum[0] + point[0], sum[1] + point[1]]);
            [sum[0] / points.len() as f32, sum[1] / points.len() as f32]
        };
        let (from_middle, to_middle) = (middle(from), middle(to));
        let (mut along, mut across, mut spread) = (0.0, 0.0, 0.0);
        for (from, to) in from.iter().zip(to) {
            let (x, y) = (from[0] - from_middle[0], from[1] - from_middle[1]);
            let (u, v) = (to[0] - to_middle[0], to[1] - to_middle[1]);
            along += x * u + y * v;
            across += x * v - y * u;
            spread += x * x + y * y;
        }
        let (a, b) = (along / spread, across / spread);
        let c = to_middle[0] - a * from_middle[0] + b * from_middle[1];
        let d = to_middle[1] - b * from_middle[0] - a * from_middle[1];
        let found = Self { a, b, c, d };
        (found.scale().is_normal() && c.is_finite() && d.is_finite()).then_some(found)
    }

    /// The one that makes a square of `side` out of the square around `middle` of `size`, turned by the angle of the line
    /// from `left` to `right`, which lies level afterwards.
    pub fn square(middle: Point, size: f32, left: Point, right: Point, side: f32) -> Option<Self> {
        let (dx, dy) = (right[0] - left[0], right[1] - left[1]);
        let length = dx.hypot(dy);
        let (cos, sin) = if length > 0.0 { (dx / length, dy / length) } else { (1.0, 0.0) };
        let half = size / 2.0;
        let right = [middle[0] + half * cos, middle[1] + half * sin];
        let below = [middle[0] - half * sin, middle[1] + half * cos];
        let to = [[side / 2.0, side / 2.0], [side, side / 2.0], [side / 2.0, side]];
        Self::between(&[middle, right, below], &to)
    }

    pub fn apply(&self, [x, y]: Point) -> Point {
        [self.a * x - self.b * y + self.c, self.b * x + self.a * y + self.d]
    }

    /// What a length becomes, for a length of 1.
    pub fn scale(&self) -> f32 {
        self.a.hypot(self.b)
    }

    pub fn inverse(&self) -> Self {
        let square = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / square, -self.b / square);
        Self { a, b, c: -(a * self.c - b * self.d), d: -(b * self.c + a * self.d) }
    }
}

/// The square of `side` pixels that `how` makes of an image; black where it is outside. Between pixels it is linear; where
/// it gets smaller, the image is made smaller first, so that no pixel is passed over.
pub fn warp(image: &Pixels, how: &Similarity, side: u32) -> Result<Pixels> {
    let back = how.inverse();
    let shrink = back.scale();
    if shrink <= 1.5 {
        return sample(image, &back, side);
    }
    let (width, height) = (f64::from(image.width()), f64::from(image.height()));
    let corners =
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]].map(|[x, y]| back.apply([x * side as f32, y * side as f32]));
    let least = |axis: usize| corners.iter().map(|corner| corner[axis]).fold(f32::INFINITY, f32::min) - shrink;
    let most = |axis: usize| corners.iter().map(|corner| corner[axis]).fold(f32::NEG_INFINITY, f32::max) + shrink;
    let left = f64::from(least(0)).clamp(0.0, width - 1.0).floor();
    let top = f64::from(least(1)).clamp(0.0, height - 1.0).floor();
    let right = f64::from(most(0)).clamp(left + 1.0, width).ceil();
    let bottom = f64::from(most(1)).clamp(top + 1.0, height).ceil();
    let small = |length: f64| (length / f64::from(shrink)).round().max(1.0);
    let (small_width, small_height) = (small(right - left), small(bottom - top));
    let part = image.resized([left, top, right - left, bottom - top], small_width as u32, small_height as u32)?;
    let (x_scale, y_scale) = ((small_width / (right - left)) as f32, (small_height / (bottom - top)) as f32);
    // The two scales differ by the rounding of a pixel; their mean moves a point by less than half of one.
    let scale = (x_scale + y_scale) / 2.0;
    let (left, top) = (left as f32, top as f32);
    let back =
        Similarity { a: back.a * scale, b: back.b * scale, c: (back.c - left) * scale, d: (back.d - top) * scale };
    sample(&part, &back, side)
}

fn sample(image: &Pixels, back: &Similarity, side: u32) -> Result<Pixels> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let at = |x: isize, y: isize, colour: usize| {
        let inside = x >= 0 && y >= 0 && x < width as isize && y < height as isize;
        if inside { f32::from(image.rgb()[(y as usize * width + x as usize) * 3 + colour]) } else { 0.0 }
    };
    let mut rgb = Vec::with_capacity(side as usize * side as usize * 3);
    for y in 0..side {
        for x in 0..side {
            // The middle of a pixel is half a pixel from its corner.
            let [from_x, from_y] = back.apply([x as f32 + 0.5, y as f32 + 0.5]).map(|place| place - 0.5);
            let (left, top) = (from_x.floor(), from_y.floor());
            let (right_part, lower_part) = (from_x - left, from_y - top);
            let (left, top) = (left as isize, top as isize);
            for colour in 0..3 {
                let upper =
                    at(left, top, colour) * (1.0 - right_part) + at(left.saturating_add(1), top, colour) * right_part;
                let below = top.saturating_add(1);
                let lower = at(left, below, colour) * (1.0 - right_part)
                    + at(left.saturating_add(1), below, colour) * right_part;
                rgb.push((upper * (1.0 - lower_part) + lower * lower_part).round() as u8);
            }
        }
    }
    Pixels::new(side, side, rgb)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn near(a: Point, b: Point) -> bool {
        (a[0] - b[0]).abs() < 1e-3 && (a[1] - b[1]).abs() < 1e-3
    }

    #[test]
    fn points_are_brought_where_they_should_be_and_back() {
        let from = [[1.0, 2.0], [5.0, 2.0], [3.0, 7.0]];
        let to = from.map(|[x, y]: Point| [-2.0 * y + 10.0, 2.0 * x - 3.0]);
        let found = Similarity::between(&from, &to).unwrap();
        assert!((found.scale() - 2.0).abs() < 1e-5);
        for (from, to) in from.into_iter().zip(to) {
            assert!(near(found.apply(from), to) && near(found.inverse().apply(to), from));
        }
        assert!(Similarity::between(&[[1.0, 1.0]; 3], &to).is_none());
        assert!(Similarity::between(&[], &[]).is_none());
    }

    #[test]
    fn a_square_is_turned_until_its_eyes_are_level() {
        let found = Similarity::square([50.0, 40.0], 20.0, [50.0, 30.0], [50.0, 50.0], 100.0).unwrap();
        assert!(near(found.apply([50.0, 40.0]), [50.0, 50.0]));
        assert!(near(found.apply([50.0, 50.0]), [100.0, 50.0]));
    }

    #[test]
    fn a_warp_moves_pixels_and_is_black_outside() {
        let rgb = (0..16).flat_map(|number| [number * 10; 3]).collect();
        let image = Pixels::new(4, 4, rgb).unwrap();
        let whole = Similarity::between(&[[0.0, 0.0], [4.0, 4.0]], &[[0.0, 0.0], [4.0, 4.0]]).unwrap();
        assert_eq!(warp(&image, &whole, 4).unwrap(), image);
        let moved = Similarity::between(&[[0.0, 0.0], [4.0, 4.0]], &[[1.0, 2.0], [5.0, 6.0]]).unwrap();
        let moved = warp(&image, &moved, 4).unwrap();
        let at = |x: usize, y: usize| moved.rgb()[(y * 4 + x) * 3];
        assert_eq!((at(0, 3), at(1, 1), at(1, 2), at(3, 3)), (0, 0, 0, 60));
        let large = Pixels::new(400, 400, vec![200; 480_000]).unwrap();
        let small = Similarity::between(&[[0.0, 0.0], [400.0, 400.0]], &[[0.0, 0.0], [10.0, 10.0]]).unwrap();
        assert!(warp(&large, &small, 10).unwrap().rgb().iter().all(|value| *value >= 195));
    }
}
