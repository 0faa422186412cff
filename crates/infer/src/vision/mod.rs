//! Looking at images: what is in them, as vectors and as classes.

pub mod clip;
pub mod conse;
mod efficientnet;
pub mod embed;
pub mod face;
pub mod imagenet;
pub mod ocr;
pub mod pixels;
pub mod space;
