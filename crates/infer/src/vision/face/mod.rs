//! Faces: where they are, and one vector for each that is near those of the same person.

mod align;
mod blazeface;
mod finder;
mod landmarks;
mod recognition;

pub use finder::{Face, FaceFinder, FaceOptions};
