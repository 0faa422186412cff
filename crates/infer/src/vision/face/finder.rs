//! From an image to its faces: detection, points, alignment and embedding, one after the other.

use super::align::{Point, Similarity, warp};
use super::blazeface::{self, BlazeFace, Found};
use super::landmarks::{self, Landmarks};
use super::recognition::{self, Recognition};
use crate::convnet::{Map, Scratch};
use crate::embed::unit;
use crate::entry::{Runtime, Task};
use crate::loaded::{Facts, Loaded, broken, runnable};
use crate::pool::Pool;
use crate::queue::Priority;
use crate::registry::Registry;
use crate::vision::pixels::Pixels;
use strata_model::{Error, Result};

/// Ids of the models that find faces and their points, whatever embeds them.
const DETECTOR: &str = "blazeface_back";
const POINTS: &str = "face_api_landmarks_68";
/// Mean red, green and blue that the networks of `face-api` were trained with.
const MEAN: [f32; 3] = [122.782, 117.001, 104.298];
/// Two boxes that share more of their union than this are of one face.
const SAME_FACE: f32 = 0.3;
/// How much larger than the detector's box the square is that points are looked for in.
const MARGIN: f32 = 1.1;
/// What a distance of a face's size between where the detector and the other network see eyes, nose and mouth takes off the
/// score. Of 22 faces and 19 things that the detector takes for some (scikit-image, `opencv-doc`), the distance is 0.02 to
/// 0.13 and 0.07 to 0.29.
const DOUBT: f32 = 3.0;
/// Pixels of a side of a crop for people and other models, and where the five points lie in it: the template of ArcFace
/// (Deng et al., 2019).
const CROP_SIDE: u32 = 112;
const CROP: [Point; 5] =
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]];

/// A face in an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Face {
    /// Left, top, right and bottom in pixels; may reach beyond the image.
    pub bbox: [f32; 4],
    /// How sure it is that this is a face, 0 to 1: the detector's score, less where the two networks see eyes, nose and
    /// mouth in different places.
    pub score: f32,
    /// The eyes, the tip of the nose and the corners of the mouth, the left ones of an upright image first, in pixels.
    pub landmarks: [[f32; 2]; 5],
    /// Jaw, brows, nose, eyes and mouth: the 68 points of the iBUG 300-W scheme, in pixels.
    pub outline: Vec<[f32; 2]>,
    /// Unit vector of [`FaceFinder::dimensions`] numbers.
    pub embedding: Vec<f32>,
}

impl Face {
    /// The face upright and centred, 112 by 112 pixels, as ArcFace and its kin take it.
    pub fn aligned(&self, image: &Pixels) -> Result<Pixels> {
        let how = Similarity::between(&self.landmarks, &CROP).ok_or_else(no_extent)?;
        warp(image, &how, CROP_SIDE)
    }
}

/// Which faces are wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceOptions {
    /// Least score, 0 to 1.
    pub min_score: f32,
    /// Least width and height in pixels.
    pub min_size: f32,
    /// The most, largest first.
    pub max_faces: usize,
}

impl Default for FaceOptions {
    /// Score 0.5, 20 pixels, 256 faces.
    fn default() -> Self {
        Self { min_score: 0.5, min_size: 20.0, max_faces: 256 }
    }
}

/// The loaded models, called after the one that embeds.
pub type FaceFinder = Loaded<Pool<Networks, Scratch>>;

/// What a [`FaceFinder`] runs.
pub struct Networks {
    detector: BlazeFace,
    points: Landmarks,
    recognition: Recognition,
}

impl FaceFinder {
    /// Loads the model that embeds faces, by id or alias, and those that find them; checks their files' SHA-256 and looks
    /// at one image to see that they work. `threads` images are looked at beside each other. Blocking, a fraction of a
    /// second.
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable` where a model is not installed or damaged (the message says what
    /// to run) or this build cannot run it; `Internal` where a file is not its network's.
    pub fn load(registry: &Registry, id: &str, threads: usize) -> Result<Self> {
        let entry = runnable(id, Task::EmbedFace, Runtime::ConvNet)?;
        let read = |id: &str| registry.read(Registry::resolve(id)?, "model.safetensors");
        let files = [read(DETECTOR)?, read(POINTS)?, read(entry.id)?];
        let wrong = |e| broken(entry.id, e);
        let networks = Networks {
            detector: BlazeFace::load(&files[0]).map_err(wrong)?,
            points: Landmarks::load(&files[1]).map_err(wrong)?,
            recognition: Recognition::load(&files[2]).map_err(wrong)?,
        };
        let facts = Facts::of(entry, &[&files[0], &files[1], &files[2]]);
        let finder = Self::new(facts, Pool::new(entry.id, threads, networks));
        let image = Pixels::new(1, 1, vec![127; 3])?;
        finder.model.run_here(|networks, scratch| networks.embed(&image, &CROP, scratch))?;
        Ok(finder)
    }

    /// The faces of an image, largest first, in the background. The image is looked at whole, so that a face is found whose
    /// width is at least about a twentieth of the image's longer side.
    ///
    /// Errors: `Internal` where the runtime fails or panics. Dropping the future gives up what has not begun.
    pub async fn find(&self, image: Pixels, options: FaceOptions) -> Result<Vec<Face>> {
        self.model.run(Priority::Ingest, move |networks, scratch| networks.find(&image, &options, scratch)).await
    }

    /// As [`FaceFinder::find`], for an image that somebody waits for: goes before background work. `Busy` where too many
    /// wait already.
    pub async fn find_now(&self, image: Pixels, options: FaceOptions) -> Result<Vec<Face>> {
        self.model.run(Priority::Query, move |networks, scratch| networks.find(&image, &options, scratch)).await
    }

    /// [`FaceFinder::find`] for threads that may block. Never call it on an async runtime's thread.
    pub fn find_blocking(&self, image: &Pixels, options: FaceOptions) -> Result<Vec<Face>> {
        self.model.run_here(|networks, scratch| networks.find(image, &options, scratch))
    }

    /// The registry's id of the model that finds faces.
    pub fn detector_id(&self) -> &'static str {
        DETECTOR
    }
}

impl Networks {
    fn find(&self, image: &Pixels, options: &FaceOptions, scratch: &mut Scratch) -> Result<Vec<Face>> {
        let mut faces = Vec::new();
        for found in self.detect(image, options, scratch)? {
            faces.extend(self.describe(image, &found, options.min_score, scratch)?);
            if faces.len() == options.max_faces {
                break;
            }
        }
        Ok(faces)
    }

    /// Boxes in pixels of the image, one a face, largest first.
    fn detect(&self, image: &Pixels, options: &FaceOptions, scratch: &mut Scratch) -> Result<Vec<Found>> {
        let side = blazeface::SIDE as f32;
        let scale = side / image.width().max(image.height()) as f32;
        let small = |length: u32| ((length as f32 * scale).round() as u32).clamp(1, blazeface::SIDE as u32);
        let whole = [0.0, 0.0, f64::from(image.width()), f64::from(image.height())];
        let part = image.resized(whole, small(image.width()), small(image.height()))?;
        let input = in_corner(&part.to_map(127.5, 127.5), blazeface::SIDE);
        let mut found = self.detector.run(&input, options.min_score, scratch)?;
        scratch.give(input);
        for found in &mut found {
            let enlarge = |point: Point| point.map(|part| part / scale);
            found.middle = enlarge(found.middle);
            found.size = enlarge(found.size);
            found.eyes = found.eyes.map(enlarge);
            found.nose = enlarge(found.nose);
            found.mouth = enlarge(found.mouth);
        }
        found
            .retain(|found| found.size.iter().all(|length| length.is_finite() && *length >= options.min_size.max(1.0)));
        let mut found = one_a_face(found);
        found.sort_by(|a, b| (b.size[0] * b.size[1]).total_cmp(&(a.size[0] * a.size[1])));
        Ok(found)
    }

    /// Finds the points of what may be a face; `None` where its score is then below `least`.
    fn describe(&self, image: &Pixels, found: &Found, least: f32, scratch: &mut Scratch) -> Result<Option<Face>> {
        let size = found.size[0].max(found.size[1]);
        let [left_eye, right_eye] = found.eyes;
        let side = landmarks::SIDE as f32;
        let how = Similarity::square(found.middle, size * MARGIN, left_eye, right_eye, side).ok_or_else(no_extent)?;
        let input = centred(&warp(image, &how, landmarks::SIDE as u32)?);
        let back = how.inverse();
        let outline: Vec<Point> =
            self.points.run(&input, scratch)?.into_iter().map(|point| back.apply(point)).collect();
        scratch.give(input);
        let eyes = [middle(&outline[36..42]), middle(&outline[42..48])];
        let (nose, mouth) = (outline[30], middle(&outline[48..68]));
        let pairs = [(eyes[0], left_eye), (eyes[1], right_eye), (nose, found.nose), (mouth, found.mouth)];
        let apart = pairs.map(|(a, b)| (a[0] - b[0]).hypot(a[1] - b[1])).iter().sum::<f32>() / 4.0 / size;
        let score = found.score * (1.0 - DOUBT * apart).max(0.0);
        if score < least {
            return Ok(None);
        }
        let corners = [outline[36], outline[39], outline[42], outline[45], outline[33]];
        let embedding = self.embed(image, &corners, scratch)?;
        let (x, y) = (found.size[0] / 2.0, found.size[1] / 2.0);
        Ok(Some(Face {
            bbox: [found.middle[0] - x, found.middle[1] - y, found.middle[0] + x, found.middle[1] + y],
            score,
            landmarks: [eyes[0], eyes[1], nose, outline[48], outline[54]],
            outline,
            embedding,
        }))
    }

    /// The vector of the face with these corners of the eyes and bottom of the nose.
    fn embed(&self, image: &Pixels, corners: &[Point; 5], scratch: &mut Scratch) -> Result<Vec<f32>> {
        let how = Similarity::between(corners, &recognition::template()).ok_or_else(no_extent)?;
        let input = centred(&warp(image, &how, recognition::SIDE as u32)?);
        let vector = self.recognition.run(&input, scratch)?;
        scratch.give(input);
        unit(vector)
    }
}

fn middle(points: &[Point]) -> Point {
    let sum = points.iter().fold([0.0, 0.0], |sum, point| [sum[0] + point[0], sum[1] + point[1]]);
    sum.map(|part| part / points.len() as f32)
}

fn no_extent() -> Error {
    Error::internal("the points of a face are all one")
}

/// The map in the upper left corner of a square, which is black elsewhere: -1.
fn in_corner(map: &Map, side: usize) -> Map {
    let mut data = vec![-1.0; side * side * map.channels];
    let row = map.width * map.channels;
    for (to, from) in data.chunks_exact_mut(side * map.channels).zip(map.data.chunks_exact(row)) {
        to[..row].copy_from_slice(from);
    }
    Map { height: side, width: side, channels: map.channels, data }
}

/// The numbers that the networks of `face-api` read.
fn centred(image: &Pixels) -> Map {
    let pixels = image.rgb().as_chunks::<3>().0.iter();
    let data = pixels.flat_map(|pixel| [0, 1, 2].map(|colour| (f32::from(pixel[colour]) - MEAN[colour]) / 255.0));
    Map { height: image.height() as usize, width: image.width() as usize, channels: 3, data: data.collect() }
}

/// Of the boxes that overlap much the one of the highest score.
fn one_a_face(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Found> = Vec::new();
    for candidate in found {
        if kept.iter().all(|other| shared(&candidate, other) <= SAME_FACE) {
            kept.push(candidate);
        }
    }
    kept
}

/// The part of two boxes' union that both cover.
fn shared(a: &Found, b: &Found) -> f32 {
    let overlap = |axis: usize| {
        let end = (a.middle[axis] + a.size[axis] / 2.0).min(b.middle[axis] + b.size[axis] / 2.0);
        let start = (a.middle[axis] - a.size[axis] / 2.0).max(b.middle[axis] - b.size[axis] / 2.0);
        (end - start).max(0.0)
    };
    let both = overlap(0) * overlap(1);
    both / (a.size[0] * a.size[1] + b.size[0] * b.size[1] - both)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(score: f32, x: f32) -> Found {
        Found { score, middle: [x, 0.0], size: [10.0, 10.0], eyes: [[0.0; 2]; 2], nose: [0.0; 2], mouth: [0.0; 2] }
    }

    #[test]
    fn boxes_around_one_face_become_one() {
        let kept = one_a_face(vec![found(0.6, 0.0), found(0.9, 2.0), found(0.7, 30.0)]);
        assert_eq!(kept, [found(0.9, 2.0), found(0.7, 30.0)]);
        assert!((shared(&found(1.0, 0.0), &found(1.0, 5.0)) - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_not_the_image_is_black() {
        let map = Map { height: 1, width: 1, channels: 1, data: vec![0.5] };
        assert_eq!(in_corner(&map, 2).data, [0.5, -1.0, -1.0, -1.0]);
    }
}
