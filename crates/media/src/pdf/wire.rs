//! A page as it goes from a worker to its parent: boxes of characters and pictures are the body, the rest is the header.

use super::{Block, Line, PageBox, PdfPage};
use crate::image::{PictureShape, pictures_from_wire, pictures_into_wire};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PageReply {
    number: u32,
    width: f32,
    height: f32,
    text: String,
    lines: Vec<Line>,
    blocks: Vec<Block>,
    char_boxes: u32,
    pictures: Vec<PictureShape>,
}

const BOX_BYTES: usize = 16;

pub(crate) fn into_wire(page: PdfPage) -> (PageReply, Vec<u8>) {
    let PdfPage { number, width, height, text, lines, blocks, char_boxes, pictures } = page;
    let (pictures, picture_bytes) = pictures_into_wire(pictures);
    if char_boxes.is_empty() {
        let reply = PageReply { number, width, height, text, lines, blocks, char_boxes: 0, pictures };
        return (reply, picture_bytes);
    }
    let mut body = Vec::with_capacity(char_boxes.len() * BOX_BYTES + picture_bytes.len());
    for PageBox { x0, y0, x1, y1 } in &char_boxes {
        for side in [x0, y0, x1, y1] {
            body.extend(side.to_le_bytes());
        }
    }
    body.extend(picture_bytes);
    let char_boxes = char_boxes.len() as u32;
    (PageReply { number, width, height, text, lines, blocks, char_boxes, pictures }, body)
}

/// `None` when header and body do not fit each other.
pub(crate) fn from_wire(reply: PageReply, body: Vec<u8>) -> Option<PdfPage> {
    let PageReply { number, width, height, text, lines, blocks, char_boxes, pictures } = reply;
    let boxes_bytes = (char_boxes as usize).checked_mul(BOX_BYTES).filter(|bytes| *bytes <= body.len())?;
    let boxes = &body[..boxes_bytes];
    let sides = boxes.as_chunks::<4>().0.iter().map(|side| f32::from_le_bytes(*side)).collect::<Vec<_>>();
    let char_boxes = sides.as_chunks::<4>().0.iter().map(|&[x0, y0, x1, y1]| PageBox { x0, y0, x1, y1 }).collect();
    let lines_fit = blocks.iter().flat_map(|b| &b.lines).all(|line| (*line as usize) < lines.len());
    let pictures_body = if boxes_bytes == 0 { body } else { body[boxes_bytes..].to_vec() };
    let pictures = pictures_from_wire(pictures, pictures_body)?;
    lines_fit.then_some(PdfPage { number, width, height, text, lines, blocks, char_boxes, pictures })
}
