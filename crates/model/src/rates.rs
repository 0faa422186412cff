//! How often a key may ask.

use serde::{Deserialize, Serialize};

/// What requests are counted as. Each group is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// Namespaces, buckets, collections, retrievers, keys and whatever else describes.
    Metadata,
    /// Objects, documents and what was done with them.
    Data,
    /// Whatever looks for something.
    Search,
    /// Bytes, and what announces or confirms them.
    Upload,
    /// What begins work: batches, evaluations, models that are asked.
    Compute,
}

/// Requests a minute by group. `None` says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    pub metadata: Option<u32>,
    pub data: Option<u32>,
    pub search: Option<u32>,
    pub upload: Option<u32>,
    pub compute: Option<u32>,
}

impl Rates {
    /// The same limit for every group.
    pub fn each(limit: u32) -> Self {
        let limit = Some(limit);
        Self { metadata: limit, data: limit, search: limit, upload: limit, compute: limit }
    }

    pub fn of(&self, group: Group) -> Option<u32> {
        match group {
            Group::Metadata => self.metadata,
            Group::Data => self.data,
            Group::Search => self.search,
            Group::Upload => self.upload,
            Group::Compute => self.compute,
        }
    }

    /// These limits, and for groups of which they say nothing, those of `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            metadata: self.metadata.or(other.metadata),
            data: self.data.or(other.data),
            search: self.search.or(other.search),
            upload: self.upload.or(other.upload),
            compute: self.compute.or(other.compute),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_the_other_has_it() {
        let own = Rates { search: Some(5), ..Rates::default() };
        let both = own.or(Rates::each(9));
        assert_eq!((both.of(Group::Search), both.of(Group::Upload)), (Some(5), Some(9)));
        assert_eq!(own.of(Group::Data), None);
    }
}
