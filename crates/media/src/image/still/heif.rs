//! What an HEIF file (ISO/IEC 23008-12; HEIC and AVIF are such) says of its primary picture: how large it is as it is shown,
//! whether it is put together of tiles, and which other picture tells how opaque it is.

use super::{
    Layer, Still,
    boxes::{Reader, boxes, find},
};
use crate::{
    fault::Failure,
    limits::{MAX_ITEMS, MAX_TILES},
};
use std::collections::HashMap;

/// What an auxiliary picture of opacity calls itself.
const ALPHA: [&[u8]; 2] = [b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"];

/// The size is that of the primary picture after cropping and turning, which the file must say; EXIF is not asked.
pub(super) fn look(file: &[u8], max_pixels: u64) -> Result<Still, Failure> {
    let meta = find(file, b"meta").and_then(Meta::read);
    let meta = meta.ok_or_else(|| Failure::file("the file has no list of pictures that can be read"))?;
    let (width, height) = meta
        .shown(meta.primary)
        .ok_or_else(|| Failure::file("the file does not say how large its primary picture is"))?;
    let picture = meta.layer(meta.primary).ok_or_else(|| Failure::file("the primary picture is not in the file"))?;
    if let Layer::Grid(_) = picture {
        meta.check_tiles(meta.primary, max_pixels)?;
    }
    let alpha = meta.alpha().and_then(|item| meta.layer(item));
    Ok(Still { width, height, picture, alpha })
}

/// The pictures of a file and what is said of them.
struct Meta<'a> {
    primary: u32,
    /// Ids and types, in the order of the file.
    items: Vec<(u32, [u8; 4])>,
    properties: Vec<([u8; 4], &'a [u8])>,
    /// Of each item the places of its properties, in the order in which they are to be followed.
    associations: HashMap<u32, Vec<usize>>,
    references: Vec<Reference>,
}

/// What one item needs others for, by the type of an `iref` box.
struct Reference {
    kind: [u8; 4],
    from: u32,
    to: Vec<u32>,
}

impl<'a> Meta<'a> {
    fn read(meta: &'a [u8]) -> Option<Self> {
        let meta = meta.get(4..)?;
        let properties = find(meta, b"iprp")?;
        Some(Self {
            primary: primary(find(meta, b"pitm")?)?,
            items: items(find(meta, b"iinf")?)?,
            properties: boxes(find(properties, b"ipco")?).take(MAX_ITEMS).collect(),
            associations: associations(find(properties, b"ipma")?)?,
            references: find(meta, b"iref").and_then(references).unwrap_or_default(),
        })
    }

    fn properties_of(&self, item: u32) -> impl Iterator<Item = ([u8; 4], &'a [u8])> + '_ {
        let places = self.associations.get(&item).map_or(&[][..], Vec::as_slice);
        places.iter().filter_map(|place| self.properties.get(*place).copied())
    }

    /// Pixels before anything is cut off or turned.
    fn stored(&self, item: u32) -> Option<(u32, u32)> {
        let (_, size) = self.properties_of(item).find(|(kind, _)| kind == b"ispe")?;
        let mut size = Reader(size.get(4..)?);
        Some((size.u32()?, size.u32()?))
    }

    fn shown(&self, item: u32) -> Option<(u32, u32)> {
        let (mut width, mut height) = self.stored(item)?;
        for (kind, content) in self.properties_of(item) {
            match &kind {
                b"clap" => {
                    let mut cut = Reader(content);
                    let (wide, high) = ((cut.u32()?, cut.u32()?), (cut.u32()?, cut.u32()?));
                    (width, height) = (wide.0.checked_div(wide.1)?.min(width), high.0.checked_div(high.1)?.min(height));
                }
                b"irot" if content.first()? & 1 == 1 => (width, height) = (height, width),
                _ => {}
            }
        }
        Some((width, height))
    }

    /// How `ffmpeg` calls a picture. It counts those that are put together in the order of the list.
    fn layer(&self, item: u32) -> Option<Layer> {
        let is_made = |kind: &[u8; 4]| kind == b"grid" || kind == b"iovl";
        let mut made = 0;
        for (id, kind) in &self.items {
            if *id == item {
                return Some(if is_made(kind) { Layer::Grid(made) } else { Layer::Item(item) });
            }
            made += u32::from(is_made(kind));
        }
        None
    }

    /// Tiles have sizes of their own, whatever the whole says.
    fn check_tiles(&self, item: u32, max_pixels: u64) -> Result<(), Failure> {
        let tiles = self.references.iter().filter(|one| &one.kind == b"dimg" && one.from == item);
        let tiles: Vec<u32> = tiles.flat_map(|one| one.to.iter().copied()).collect();
        if tiles.len() > MAX_TILES {
            let message =
                format!("the image is put together of {} parts; at most {MAX_TILES} are decoded", tiles.len());
            return Err(Failure::limit(message));
        }
        let sizes = tiles.iter().filter_map(|tile| self.stored(*tile));
        let pixels = sizes.fold(0u64, |sum, (w, h)| sum.saturating_add(u64::from(w) * u64::from(h)));
        // Those at the edges go beyond them.
        if pixels > max_pixels.saturating_mul(2) {
            let message = format!("the parts of the image have {pixels} pixels; at most {max_pixels} are decoded");
            return Err(Failure::limit(message));
        }
        Ok(())
    }

    /// The picture of how opaque the primary one is.
    fn alpha(&self) -> Option<u32> {
        let tells_alpha = |item: u32| {
            let mut kinds = self.properties_of(item).filter(|(kind, _)| kind == b"auxC");
            kinds.any(|(_, kind)| {
                let name = kind.get(4..).and_then(|name| name.split(|byte| *byte == 0).next());
                name.is_some_and(|name| ALPHA.contains(&name))
            })
        };
        let mut auxiliary = self.references.iter().filter(|one| &one.kind == b"auxl" && one.to.contains(&self.primary));
        auxiliary.find(|one| tells_alpha(one.from)).map(|one| one.from)
    }
}

fn primary(content: &[u8]) -> Option<u32> {
    let mut content = Reader(content);
    let (version, _) = content.version()?;
    content.number(version > 0)
}

fn items(content: &[u8]) -> Option<Vec<(u32, [u8; 4])>> {
    let mut content = Reader(content);
    let (version, _) = content.version()?;
    content.number(version > 0)?;
    let entries = boxes(content.0).take(MAX_ITEMS).filter(|(kind, _)| kind == b"infe");
    Some(entries.filter_map(|(_, entry)| item(entry)).collect())
}

fn item(entry: &[u8]) -> Option<(u32, [u8; 4])> {
    let mut entry = Reader(entry);
    let (version, _) = entry.version()?;
    if version < 2 {
        return None;
    }
    let id = entry.number(version > 2)?;
    entry.u16()?;
    Some((id, *entry.take(4)?.first_chunk::<4>()?))
}

fn associations(content: &[u8]) -> Option<HashMap<u32, Vec<usize>>> {
    let mut content = Reader(content);
    let (version, flags) = content.version()?;
    let count = content.u32()?;
    let mut all = HashMap::new();
    for _ in 0..count.min(MAX_ITEMS as u32) {
        let item = content.number(version > 0)?;
        let mut places = Vec::new();
        for _ in 0..content.u8()? {
            // The highest bit says that whoever does not know the property must not show the picture. Zero is none.
            let place = if flags & 1 == 1 { content.u16()? & 0x7fff } else { u16::from(content.u8()? & 0x7f) };
            places.extend(usize::from(place).checked_sub(1));
        }
        all.insert(item, places);
    }
    Some(all)
}

fn references(content: &[u8]) -> Option<Vec<Reference>> {
    let mut content = Reader(content);
    let (version, _) = content.version()?;
    let is_wide = version > 0;
    let mut all = Vec::new();
    for (kind, content) in boxes(content.0).take(MAX_ITEMS) {
        let mut content = Reader(content);
        let from = content.number(is_wide)?;
        let count = content.u16()?;
        let to: Option<Vec<u32>> = (0..count).map(|_| content.number(is_wide)).collect();
        all.push(Reference { kind, from, to: to? });
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/files/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn still(width: u32, height: u32, picture: Layer, alpha: Option<Layer>) -> Still {
        Still { width, height, picture, alpha }
    }

    #[test]
    fn cropping_turning_tiles_and_opacity_are_seen() {
        let cases = [
            ("turned_1.heic", still(64, 32, Layer::Item(1), None)),
            ("turned_3.heic", still(64, 32, Layer::Item(1), None)),
            ("turned_6.heic", still(32, 64, Layer::Item(1), None)),
            ("tiles.heic", still(160, 96, Layer::Grid(0), None)),
            ("transparent.heic", still(64, 32, Layer::Item(1), Some(Layer::Item(2)))),
            ("second_is_primary.heic", still(64, 64, Layer::Item(2), None)),
        ];
        for (name, expected) in cases {
            assert_eq!(look(&file(name), 100_000_000), Ok(expected), "{name}");
        }
    }

    #[test]
    fn more_tiles_than_are_decoded_are_refused() {
        let failure = look(&file("tiles.heic"), 160 * 96 / 3).unwrap_err();
        assert!(failure.reason.contains("parts"), "{failure:?}");
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = file("transparent.heic");
        for length in 0..whole.len() {
            // Behind the lists it is the decoder's to say what is missing.
            let _ = look(&whole[..length], 100_000_000);
        }
        assert!(look(&whole[..200], 100_000_000).is_err());
        assert!(look(b"", 100_000_000).is_err());
    }
}
