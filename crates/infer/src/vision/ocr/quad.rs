//! Rectangles that lie at an angle.

/// The corners of a rectangle in pixels: clockwise from the upper left, as its text is read.
pub type Quad = [[f32; 2]; 4];

fn distance(a: [f32; 2], b: [f32; 2]) -> f32 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// Width and height.
pub fn size(quad: &Quad) -> (f32, f32) {
    (distance(quad[0], quad[1]), distance(quad[1], quad[2]))
}

/// The smallest rectangle around points, by the sides of their convex hull; `None` for less than three that span one.
pub fn around(points: &[[f32; 2]]) -> Option<Quad> {
    let hull = hull(points);
    if hull.len() < 3 {
        return None;
    }
    let mut best: Option<(f32, Quad)> = None;
    for (at, a) in hull.iter().enumerate() {
        let b = hull[(at + 1) % hull.len()];
        let length = distance(*a, b);
        if length < f32::EPSILON {
            continue;
        }
        let along = [(b[0] - a[0]) / length, (b[1] - a[1]) / length];
        let across = [-along[1], along[0]];
        let span = |axis: [f32; 2]| {
            let places = hull.iter().map(|p| p[0] * axis[0] + p[1] * axis[1]);
            places.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), place| (low.min(place), high.max(place)))
        };
        let ((left, right), (top, bottom)) = (span(along), span(across));
        let area = (right - left) * (bottom - top);
        if best.is_none_or(|(least, _)| area < least) {
            let corner = |x: f32, y: f32| [along[0] * x + across[0] * y, along[1] * x + across[1] * y];
            best = Some((area, [corner(left, top), corner(right, top), corner(right, bottom), corner(left, bottom)]));
        }
    }
    best.map(|(_, quad)| upright(quad))
}

/// Turned so that the first corner is the upper left one of the text: the side that goes right goes first.
fn upright(quad: Quad) -> Quad {
    let turned = |by: usize| std::array::from_fn(|at| quad[(at + by) % 4]);
    let rightward = |quad: &Quad| quad[1][0] - quad[0][0];
    let turns: [Quad; 4] = std::array::from_fn(turned);
    turns.into_iter().max_by(|a, b| rightward(a).total_cmp(&rightward(b))).unwrap_or(quad)
}

/// Each side moved out by `by` pixels.
pub fn widened(quad: &Quad, by: f32) -> Quad {
    let (width, height) = size(quad);
    let direction = |a: [f32; 2], b: [f32; 2], length: f32| match length > f32::EPSILON {
        true => [(b[0] - a[0]) / length * by, (b[1] - a[1]) / length * by],
        false => [0.0, 0.0],
    };
    let (x, y) = (direction(quad[0], quad[1], width), direction(quad[1], quad[2], height));
    let moved = |corner: [f32; 2], right: f32, down: f32| {
        [corner[0] + right * x[0] + down * y[0], corner[1] + right * x[1] + down * y[1]]
    };
    [moved(quad[0], -1.0, -1.0), moved(quad[1], 1.0, -1.0), moved(quad[2], 1.0, 1.0), moved(quad[3], -1.0, 1.0)]
}

/// The convex hull, by Andrew's monotone chain.
fn hull(points: &[[f32; 2]]) -> Vec<[f32; 2]> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    sorted.dedup();
    let turn = |o: [f32; 2], a: [f32; 2], b: [f32; 2]| (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0]);
    let chain = |points: &mut dyn Iterator<Item = [f32; 2]>| {
        let mut chain: Vec<[f32; 2]> = Vec::new();
        for point in points {
            while chain.len() >= 2 && turn(chain[chain.len() - 2], chain[chain.len() - 1], point) <= 0.0 {
                chain.pop();
            }
            chain.push(point);
        }
        chain.pop();
        chain
    };
    let mut hull = chain(&mut sorted.iter().copied());
    hull.extend(chain(&mut sorted.iter().rev().copied()));
    hull
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_smallest_rectangle_follows_the_angle() {
        let level = around(&[[0.0, 0.0], [10.0, 0.0], [10.0, 4.0], [0.0, 4.0], [5.0, 2.0]]).unwrap();
        assert_eq!((level[0], size(&level)), ([0.0, 0.0], (10.0, 4.0)));
        let (sine, cosine) = 0.3_f32.sin_cos();
        let turn = |x: f32, y: f32| [x * cosine - y * sine, x * sine + y * cosine];
        let tilted = around(&[turn(0.0, 0.0), turn(20.0, 0.0), turn(20.0, 5.0), turn(0.0, 5.0)]).unwrap();
        let (width, height) = size(&tilted);
        assert!((width - 20.0).abs() < 1e-3 && (height - 5.0).abs() < 1e-3, "{width} {height}");
        assert_eq!(around(&[[1.0, 1.0], [2.0, 2.0]]), None);
    }

    #[test]
    fn a_widened_rectangle_has_its_middle_where_it_was() {
        let quad = widened(&[[0.0, 0.0], [10.0, 0.0], [10.0, 4.0], [0.0, 4.0]], 1.0);
        assert_eq!(quad, [[-1.0, -1.0], [11.0, -1.0], [11.0, 5.0], [-1.0, 5.0]]);
    }
}
