//! Reading the `model.bin` of CTranslate2: named tensors and aliases, little-endian, as `ctranslate2/specs/model_spec.py`
//! of that project writes them (binary version 6). Nothing of it is executed.

use std::collections::BTreeMap;
use strata_model::{Error, Result};

/// The only version of the format that is read.
const VERSION: u32 = 6;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

/// How the numbers of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    F32,
    F16,
    /// Whole numbers, of settings; their size in bytes.
    Integer(usize),
}

impl Number {
    fn of(code: u8) -> Result<Self> {
        match code {
            0 => Ok(Self::F32),
            1 => Ok(Self::Integer(1)),
            2 => Ok(Self::Integer(2)),
            3 => Ok(Self::Integer(4)),
            4 => Ok(Self::F16),
            _ => Err(Error::Malformed(format!("the file has numbers of the unknown kind {code}"))),
        }
    }
    fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Integer(size) => size,
        }
    }
}

/// A tensor inside the file's bytes.
#[derive(Debug, Clone)]
pub struct Variable<'a> {
    pub shape: Vec<usize>,
    pub number: Number,
    /// Row-major, little-endian.
    pub bytes: &'a [u8],
}

impl<'a> Variable<'a> {
    /// Part `index` of `parts` equal ones along the first dimension.
    pub fn part(&self, index: usize, parts: usize) -> Result<Self> {
        match self.shape.first() {
            Some(rows) if rows % parts == 0 => {
                let size = self.bytes.len() / parts;
                let mut shape = self.shape.clone();
                shape[0] = rows / parts;
                Ok(Self { shape, number: self.number, bytes: &self.bytes[index * size..(index + 1) * size] })
            }
            _ => Err(Error::Malformed(format!("a tensor of the shape {:?} has no {parts} equal parts", self.shape))),
        }
    }
}

/// The tensors of a file by name; an alias is a name like any other.
///
/// Errors: `Malformed` where the file is cut off, of another version, or says something impossible.
pub fn read(file: &[u8]) -> Result<BTreeMap<String, Variable<'_>>> {
    let mut reader = Reader(file);
    let version = reader.u32()?;
    if version != VERSION {
        return Err(Error::Malformed(format!("the file has the version {version}, expected {VERSION}")));
    }
    reader.text()?;
    reader.u32()?;
    let mut variables = BTreeMap::new();
    for _ in 0..reader.u32()? {
        let name = reader.text()?;
        let variable = reader.variable().map_err(|e| Error::Malformed(format!("`{name}`: {e}")))?;
        variables.insert(name, variable);
    }
    for _ in 0..reader.u32()? {
        let (alias, name) = (reader.text()?, reader.text()?);
        let variable = variables.get(&name).cloned();
        let missing = || Error::Malformed(format!("`{alias}` is another name of `{name}`, which is missing"));
        variables.insert(alias.clone(), variable.ok_or_else(missing)?);
    }
    Ok(variables)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or_else(|| Error::Malformed("the file is cut off".to_owned()))?;
        self.0 = rest;
        Ok(taken)
    }
    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N)?);
        Ok(number)
    }
    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.number()?))
    }
    /// A text of a 16-bit length that counts the 0 at its end.
    fn text(&mut self) -> Result<String> {
        let size = u16::from_le_bytes(self.number()?);
        let bytes = self.take(size.into())?;
        let text = std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes));
        text.map(str::to_owned).map_err(|_| Error::Malformed("a name in the file is no text".to_owned()))
    }
    fn variable(&mut self) -> Result<Variable<'a>> {
        let dimensions = usize::from(self.number::<1>()?[0]);
        if dimensions > MAX_DIMENSIONS {
            return Err(Error::Malformed(format!("it has {dimensions} dimensions")));
        }
        let mut shape = Vec::with_capacity(dimensions);
        for _ in 0..dimensions {
            shape.push(self.u32()? as usize);
        }
        let number = Number::of(self.number::<1>()?[0])?;
        let size = self.u32()? as usize;
        let expected = shape.iter().try_fold(number.size_bytes(), |size, n| size.checked_mul(*n));
        if expected != Some(size) {
            return Err(Error::Malformed(format!("it has {size} bytes, which does not fit the shape {shape:?}")));
        }
        Ok(Variable { shape, number, bytes: self.take(size)? })
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(to: &mut Vec<u8>, text: &str) {
        to.extend((text.len() as u16 + 1).to_le_bytes());
        to.extend(text.as_bytes());
        to.push(0);
    }

    /// A file of tensors of f32.
    pub fn file(variables: &[(&str, &[u32], &[f32])]) -> Vec<u8> {
        let mut file = VERSION.to_le_bytes().to_vec();
        text(&mut file, "WhisperSpec");
        file.extend(3_u32.to_le_bytes());
        file.extend((variables.len() as u32).to_le_bytes());
        for (name, shape, data) in variables {
            text(&mut file, name);
            file.push(shape.len() as u8);
            shape.iter().for_each(|n| file.extend(n.to_le_bytes()));
            file.push(0);
            file.extend((data.len() as u32 * 4).to_le_bytes());
            data.iter().for_each(|n| file.extend(n.to_le_bytes()));
        }
        file.extend(1_u32.to_le_bytes());
        text(&mut file, "alias");
        text(&mut file, variables[0].0);
        file
    }

    #[test]
    fn tensors_and_aliases_are_read_and_split() {
        let file = file(&[("a/weight", &[4, 1], &[1.0, 2.0, 3.0, 4.0]), ("b", &[], &[5.0])]);
        let variables = read(&file).unwrap();
        assert_eq!(variables.keys().collect::<Vec<_>>(), ["a/weight", "alias", "b"]);
        let half = variables["alias"].part(1, 2).unwrap();
        assert_eq!(
            (half.shape.as_slice(), half.bytes),
            (&[2, 1][..], [3.0_f32.to_le_bytes(), 4.0_f32.to_le_bytes()].as_flattened())
        );
        assert!(variables["alias"].part(0, 3).is_err());
    }

    #[test]
    fn a_cut_or_changed_file_is_refused_wherever_it_is_cut() {
        let file = file(&[("a/weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0])]);
        for end in 0..file.len() {
            assert!(matches!(read(&file[..end]), Err(Error::Malformed(_))), "{end}");
        }
        for position in 0..file.len() {
            let mut changed = file.clone();
            changed[position] ^= 0xff;
            let _ = read(&changed);
        }
    }
}
