//! Prints images/s of the image model by threads, and the latency of one image alone. Run on an idle machine:
//! `cargo run --release -p strata-infer --example image_rate`.

use std::time::{Duration, Instant};
use strata_infer::{ImageEmbedder, Pixels, Registry};
use strata_model::Result;

const MODEL: &str = "efficientnet_lite0";
const SPAN: Duration = Duration::from_secs(4);

fn main() -> Result<()> {
    let registry = Registry::open(Registry::default_dir()?);
    registry.pull(MODEL)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (width, height) in [(256, 256), (1280, 960)] {
        let image = noise(width, height)?;
        for threads in [1, cores] {
            rate(&ImageEmbedder::load(&registry, MODEL, threads)?, &image, threads)?;
        }
    }
    Ok(())
}

/// An image without two pixels alike, so that nothing is easy.
fn noise(width: u32, height: u32) -> Result<Pixels> {
    let mut state = 1_u32;
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Pixels::new(width, height, next.take((width * height * 3) as usize).collect())
}

fn rate(embedder: &ImageEmbedder, image: &Pixels, threads: usize) -> Result<()> {
    let start = Instant::now();
    let look = || -> Result<usize> {
        let mut count = 0;
        while start.elapsed() < SPAN {
            embedder.look_blocking(image.clone())?;
            count += 1;
        }
        Ok(count)
    };
    let counts: Vec<Result<usize>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(look)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let count = counts.into_iter().sum::<Result<usize>>()?;
    let (width, height) = (image.width(), image.height());
    println!("{width} x {height}, {threads} threads: {:.1} images/s", count as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
