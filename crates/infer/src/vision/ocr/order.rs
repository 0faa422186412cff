//! The order in which lines are read: from top to bottom, what stands side by side from left to right.

use super::quad::Quad;

fn extent(quad: &Quad, axis: usize) -> (f32, f32) {
    let places = quad.iter().map(|corner| corner[axis]);
    places.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), place| (low.min(place), high.max(place)))
}

/// Lines whose heights overlap by more than half of the lower one stand in one row.
pub fn in_reading_order(mut quads: Vec<Quad>) -> Vec<Quad> {
    let middle = |quad: &Quad| {
        let (top, bottom) = extent(quad, 1);
        top.midpoint(bottom)
    };
    quads.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
    let mut rows: Vec<Vec<Quad>> = Vec::new();
    for quad in quads {
        let (top, bottom) = extent(&quad, 1);
        let same_row = |row: &Vec<Quad>| {
            row.last().is_some_and(|last| {
                let (other_top, other_bottom) = extent(last, 1);
                let shared = bottom.min(other_bottom) - top.max(other_top);
                shared > (bottom - top).min(other_bottom - other_top) / 2.0
            })
        };
        match rows.last_mut() {
            Some(row) if same_row(row) => row.push(quad),
            _ => rows.push(vec![quad]),
        }
    }
    for row in &mut rows {
        row.sort_by(|a, b| extent(a, 0).0.total_cmp(&extent(b, 0).0));
    }
    rows.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_from_left_to_right() {
        let at = |x: f32, y: f32| [[x, y], [x + 10.0, y], [x + 10.0, y + 5.0], [x, y + 5.0]];
        let read = in_reading_order(vec![at(20.0, 1.0), at(0.0, 10.0), at(0.0, 0.0)]);
        assert_eq!(read.iter().map(|quad| quad[0]).collect::<Vec<_>>(), [[0.0, 0.0], [20.0, 1.0], [0.0, 10.0]]);
    }
}
