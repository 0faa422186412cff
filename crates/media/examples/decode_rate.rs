//! How fast files are decoded. Prints one line of JSON for each of what was asked:
//!
//! ```text
//! cargo build --release -p strata-media --bins
//! cargo run --release -p strata-media --example decode_rate -- images FOLDER SECONDS
//! cargo run --release -p strata-media --example decode_rate -- pdf FILE DPI
//! cargo run --release -p strata-media --example decode_rate -- video FILE FRAMES_PER_SECOND
//! cargo run --release -p strata-media --example decode_rate -- audio FILE
//! ```
//!
//! `images` makes a 224 x 224 input of a model and a thumbnail of each image of a folder, over and over; `pdf` reads the
//! text, lines and blocks of all pages and renders each; `video` makes frames of 224 x 224; `audio` makes 16 kHz samples.
//! The tools are those of `STRATA_MODELS`, or `ffmpeg` of the search path.

use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use strata_media::{
    AudioRequest, Config, Decoder, Family, Filter, FrameRequest, FrameSampling, ImageOutput, ImageRequest, PdfRequest,
    Rendering, Resize, Source, Tools,
};
use strata_model::{Error, Result};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::internal)?;
    runtime.block_on(async {
        let decoder = decoder()?;
        let number = |text: &str| text.parse::<f64>().map_err(|_| Error::invalid(text, "must be a number"));
        let measured = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["images", folder, seconds] => images(&decoder, Path::new(folder), number(seconds)?).await?,
            ["pdf", file, dpi] => pdf(&decoder, path(file), number(dpi)? as f32).await?,
            ["video", file, rate] => video(&decoder, path(file), number(rate)?).await?,
            ["audio", file] => audio(&decoder, path(file)).await?,
            _ => {
                return Err(Error::invalid(
                    "arguments",
                    "images FOLDER SECONDS, pdf FILE DPI, video FILE RATE, audio FILE",
                ));
            }
        };
        println!("{measured}");
        Ok(())
    })
}

fn path(file: &str) -> Source {
    Source::Path(PathBuf::from(file))
}

/// A decoder whose children are this crate's own program, which lies beside the folder of the examples.
fn decoder() -> Result<Decoder> {
    let me = std::env::current_exe().map_err(Error::internal)?;
    let built = me.parent().and_then(Path::parent).ok_or_else(|| Error::internal("an example lies in a folder"))?;
    let models = std::env::var_os("STRATA_MODELS").map(PathBuf::from).unwrap_or_default();
    let tools = Tools::default().completed(&[&models.join("ffmpeg"), &models.join("pdfium")]);
    Ok(Decoder::new(Config::new(built.join("strata-media-child"), Vec::new(), tools)))
}

async fn images(decoder: &Decoder, folder: &Path, seconds: f64) -> Result<serde_json::Value> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::internal)? {
        let source = Source::Path(entry.map_err(Error::internal)?.path());
        if matches!(decoder.probe(&source).await, Ok(probe) if probe.family == Family::Image && probe.width.is_some()) {
            files.push(source);
        }
    }
    let outputs =
        vec![ImageOutput::thumbnail(), ImageOutput::pixels(Resize::Exact { width: 224, height: 224 }, Filter::Bicubic)];
    let request = ImageRequest { outputs };
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(seconds);
    let tasks = std::thread::available_parallelism().map_or(2, usize::from);
    let running: Vec<_> = (0..tasks)
        .map(|first| {
            let (decoder, request, files) = (decoder.clone(), request.clone(), files.clone());
            tokio::spawn(async move {
                let (mut done, mut pixels) = (0u64, 0u64);
                for source in files.iter().cycle().skip(first * files.len() / tasks) {
                    if Instant::now() >= until {
                        break;
                    }
                    let image = decoder.image(source, &request).await?;
                    done += 1;
                    pixels += u64::from(image.width) * u64::from(image.height);
                }
                Ok::<_, Error>((done, pixels))
            })
        })
        .collect();
    let (mut done, mut pixels) = (0, 0);
    for task in running {
        let (images, of_pixels) = task.await.map_err(Error::internal)??;
        done += images;
        pixels += of_pixels;
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({
        "images": files.len(),
        "images_per_second": done as f64 / seconds,
        "megapixels_per_second": pixels as f64 / 1e6 / seconds,
    }))
}

async fn pdf(decoder: &Decoder, source: Source, dpi: f32) -> Result<serde_json::Value> {
    let mut rates = serde_json::Map::new();
    let rendering = Rendering { dpi, outputs: vec![ImageOutput::original()] };
    let cases = [("text", PdfRequest::text()), ("render", PdfRequest::rendered(rendering))];
    for (name, request) in cases {
        let started = Instant::now();
        let mut pages = decoder.pdf_pages(&source, &request).await?;
        let mut count = 0u32;
        while pages.next().await?.is_some() {
            count += 1;
        }
        rates.insert("pages".to_owned(), json!(count));
        rates.insert(format!("{name}_pages_per_second"), json!(f64::from(count) / started.elapsed().as_secs_f64()));
    }
    Ok(rates.into())
}

async fn video(decoder: &Decoder, source: Source, frames_per_second: f64) -> Result<serde_json::Value> {
    let sampling = FrameSampling::Rate { frames_per_second, start_ms: 0, end_ms: None, max_frames: 100_000 };
    let size = Resize::Exact { width: 224, height: 224 };
    let started = Instant::now();
    let mut frames = decoder.frames(&source, &FrameRequest { sampling, size, filter: Filter::Bicubic }).await?;
    let mut count = 0u32;
    while frames.next().await?.is_some() {
        count += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({ "frames": count, "frames_per_second": f64::from(count) / seconds }))
}

async fn audio(decoder: &Decoder, source: Source) -> Result<serde_json::Value> {
    let request = AudioRequest { sample_rate: 16_000, start_ms: 0, max_duration_ms: 24 * 3_600_000 };
    let started = Instant::now();
    let mut sound = decoder.audio(&source, request).await?;
    let mut samples = 0usize;
    while let Some(chunk) = sound.next().await? {
        samples += chunk.len();
    }
    let minutes = samples as f64 / 16_000.0 / 60.0;
    Ok(json!({ "minutes": minutes, "minutes_per_second": minutes / started.elapsed().as_secs_f64() }))
}
