//! Finding faces and telling people apart, on real photos. `face-api/sample1.jpg` to `sample6.jpg` are from the folder `demo`
//! of the npm package `@vladmandic/face-api` 1.7.15, which the weights are from, too.

#![allow(clippy::unwrap_used)]

mod support;

use image::RgbImage;
use image::imageops::{self, FilterType};
use strata_infer::{Face, FaceFinder, FaceOptions, Pixels, Registry, Task};
use support::{cropped, file, photo, pixels};

fn finder() -> FaceFinder {
    let registry = Registry::open(Registry::default_dir().unwrap());
    for entry in Registry::resolve_all("faces").unwrap() {
        registry.pull(entry.id).unwrap();
    }
    FaceFinder::load(&registry, "face_api_resnet_128_v1", 2).unwrap()
}

fn faces(finder: &FaceFinder, image: &Pixels) -> Vec<Face> {
    finder.find_blocking(image, FaceOptions::default()).unwrap()
}

fn cosine(a: &Face, b: &Face) -> f32 {
    a.embedding.iter().zip(&b.embedding).map(|(x, y)| x * y).sum()
}

/// The same weights in TensorFlow.js 4.22 on the same 256 by 256 pixels: score 0.90407, middle (123.925, 103.595), size
/// 102.31.
#[test]
fn a_face_is_where_the_reference_sees_it() {
    let found = faces(&finder(), &cropped("scikit-image/astronaut.png", [100, 20, 256, 256]));
    assert_eq!(found.len(), 1);
    let expected = [72.768, 52.439, 175.081, 154.751];
    for (found, expected) in found[0].bbox.iter().zip(expected) {
        assert!((found - expected).abs() < 0.01_f32, "{found} {expected}");
    }
    assert!(found[0].score > 0.8 && found[0].score < 0.904_08, "{}", found[0].score);
    assert_eq!(found[0].outline.len(), 68);
    let [left_eye, right_eye, nose, left_mouth, right_mouth] = found[0].landmarks;
    assert!(left_eye[0] < nose[0] && nose[0] < right_eye[0] && left_mouth[0] < right_mouth[0]);
    assert!(left_eye[1] < nose[1] && nose[1] < left_mouth[1]);
}

#[test]
fn people_are_found_and_things_are_not() {
    let finder = finder();
    for (name, expected) in [("sample1", 3), ("sample4", 4), ("sample5", 5), ("sample6", 4)] {
        assert_eq!(faces(&finder, &photo(&format!("face-api/{name}.jpg"))).len(), expected, "{name}");
    }
    for name in ["scikit-image/astronaut.png", "scikit-image/camera.png", "opencv-doc/messi5.jpg"] {
        assert_eq!(faces(&finder, &photo(name)).len(), 1, "{name}");
    }
    let things = ["coffee.png", "chelsea.png", "rocket.jpg", "coins.png", "moon.png", "horse.png"];
    let things = things.map(|name| format!("scikit-image/{name}")).into_iter();
    let others = ["baboon", "building", "fruits", "apple", "aero1", "home", "leuvenA", "orange", "butterfly", "graf1"];
    let others = others.iter().map(|name| match *name {
        "graf1" => "opencv-doc/graf1.png".to_owned(),
        name => format!("opencv-doc/{name}.jpg"),
    });
    for name in things.chain(others) {
        let found = faces(&finder, &photo(&name));
        assert!(found.is_empty(), "{name}: {} {:?}", found[0].score, found[0].bbox);
    }
}

/// The photo as another camera might have taken it.
fn variants(image: &RgbImage) -> Vec<(&'static str, RgbImage)> {
    let (width, height) = image.dimensions();
    vec![
        ("mirrored", imageops::flip_horizontal(image)),
        ("brighter", imageops::brighten(image, 30)),
        ("darker", imageops::brighten(image, -30)),
        ("smaller", imageops::resize(image, width / 2, height / 2, FilterType::Triangle)),
        ("less contrast", imageops::contrast(image, -20.0)),
        ("blurred", imageops::fast_blur(image, 1.5)),
    ]
}

#[test]
fn a_person_is_nearer_to_herself_than_to_others() {
    let finder = finder();
    let names = ["face-api/sample1.jpg", "face-api/sample5.jpg", "face-api/sample6.jpg", "scikit-image/astronaut.png"];
    let mut people: Vec<Vec<(&str, Face)>> = Vec::new();
    for name in names {
        let image = image::open(file(name)).unwrap().to_rgb8();
        let found = faces(&finder, &pixels(image.clone()));
        let first = people.len();
        people.extend(found.iter().map(|face| vec![("plain", face.clone())]));
        for (how, variant) in variants(&image) {
            for face in faces(&finder, &pixels(variant)) {
                let scale = if how == "smaller" { 2.0 } else { 1.0 };
                let mut x = (face.bbox[0] + face.bbox[2]) / 2.0 * scale;
                if how == "mirrored" {
                    x = image.width() as f32 - x;
                }
                let near = |person: &&mut Vec<(&str, Face)>| {
                    let place = person[0].1.bbox;
                    (place[0]..place[2]).contains(&x)
                };
                if let Some(person) = people[first..].iter_mut().find(near) {
                    person.push((how, face));
                }
            }
        }
    }
    assert_eq!(people.len(), 13);
    let (mut least_same, mut most_other) = (1.0_f32, -1.0_f32);
    let (mut right, mut all) = (0, 0);
    for (number, person) in people.iter().enumerate() {
        assert!(person.len() >= 5, "{}", person.len());
        for (how, face) in &person[1..] {
            let same = cosine(face, &person[0].1);
            let others = people.iter().enumerate().filter(|(other, _)| *other != number);
            let nearest = others.map(|(_, other)| cosine(face, &other[0].1)).fold(-1.0, f32::max);
            println!("person {number} {how}: {same:.3}, nearest other {nearest:.3}");
            (least_same, most_other) = (least_same.min(same), most_other.max(nearest));
            right += usize::from(same > nearest);
            all += 1;
        }
    }
    println!("{right} of {all} nearer to herself; least same {least_same:.3}, most other {most_other:.3}");
    assert_eq!(right, all);
}

#[test]
fn a_crop_is_upright_and_any_image_is_looked_at() {
    let finder = finder();
    let image = photo("scikit-image/astronaut.png");
    let crop = faces(&finder, &image)[0].aligned(&image).unwrap();
    assert_eq!((crop.width(), crop.height()), (112, 112));
    assert_eq!(finder.dimensions(), 128);
    assert_eq!(Registry::resolve(finder.detector_id()).unwrap().task, Task::DetectFaces);
    for (width, height) in [(1, 1), (1, 3000), (3000, 2), (31, 17)] {
        let image = Pixels::new(width, height, vec![200; (width * height * 3) as usize]).unwrap();
        assert!(faces(&finder, &image).is_empty());
    }
    let few = FaceOptions { max_faces: 2, ..FaceOptions::default() };
    assert_eq!(finder.find_blocking(&photo("face-api/sample5.jpg"), few).unwrap().len(), 2);
    let large = FaceOptions { min_size: 110.0, ..FaceOptions::default() };
    assert!(finder.find_blocking(&image, large).unwrap().is_empty());
}
