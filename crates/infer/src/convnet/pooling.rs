//! What a window sees of each channel, in one number.

use super::{Map, Scratch, Window};

/// The largest number of each channel under the window; zeros around a map do not count.
pub fn max_pool(input: &Map, window: Window, scratch: &mut Scratch) -> Map {
    pool(input, window, scratch, f32::NEG_INFINITY, f32::max)
}

/// The mean of each channel under a window that stays on the map.
pub fn mean_pool(input: &Map, window: Window, scratch: &mut Scratch) -> Map {
    let mut output = pool(input, window, scratch, 0.0, |sum, number| sum + number);
    let area = (window.kernel * window.kernel) as f32;
    output.data.iter_mut().for_each(|number| *number /= area);
    output
}

fn pool(input: &Map, window: Window, scratch: &mut Scratch, start: f32, join: impl Fn(f32, f32) -> f32) -> Map {
    let channels = input.channels;
    let mut output = scratch.map(window.positions(input.height), window.positions(input.width), channels);
    output.data.fill(start);
    for (position, pixel) in output.data.chunks_exact_mut(channels).enumerate() {
        let (from_y, ky) = window.overlap(position / output.width, input.height);
        let (from_x, kx) = window.overlap(position % output.width, input.width);
        for y in from_y..from_y + ky.len() {
            let row = &input.data[(y * input.width + from_x) * channels..][..kx.len() * channels];
            for seen in row.chunks_exact(channels) {
                pixel.iter_mut().zip(seen).for_each(|(to, from)| *to = join(*to, *from));
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_window_one_number_a_channel_is_left() {
        let data = (0..18).map(|number| number as f32).collect();
        let input = Map { height: 3, width: 3, channels: 2, data };
        let scratch = &mut Scratch::default();
        assert_eq!(max_pool(&input, Window::inside(3, 2), scratch).data, [16.0, 17.0]);
        assert_eq!(mean_pool(&input, Window::inside(2, 2), scratch).data, [4.0, 5.0]);
        assert_eq!(max_pool(&input, Window::same(2, 2), scratch).data, [8.0, 9.0, 10.0, 11.0, 14.0, 15.0, 16.0, 17.0]);
    }
}
