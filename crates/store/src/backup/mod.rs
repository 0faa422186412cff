//! Backups: the catalog, the contents that it refers to, and files of the operator, in a repository of their own. The
//! index is derived and in no backup; a restored server builds it anew.
//!
//! A repository is a directory or a prefix of an object store:
//!
//! | object | is |
//! |---|---|
//! | `strata-backups.json` | what says that this is a repository |
//! | `manifests/<backup>.<SHA-256 of the file>.json` | one backup; written last, so a backup without one does not exist |
//! | `blobs/<2 digits>/<SHA-256>` | a content as it is |
//! | `chunks/<2 digits>/<SHA-256>` | a piece of a catalog, a list of contents or a file, compressed (zlib); named by what it is uncompressed |
//! | `marks/…` | who works on the repository right now |
//! | `drafts/…` | in a directory: what is being written and has no name yet |
//!
//! Contents and chunks are named by their hash, so what is there is not written again, and every backup is whole: any may
//! be removed without the others. What no manifest names is swept when a backup is thinned out ([`retention`]).
//!
//! Why a backup that is made while the server writes is consistent: first nobody may remove contents any more, in no
//! process ([`crate::Blobs::keep_all`]); then one snapshot of the catalog is copied. Every content that the snapshot refers
//! to was stored before the row that names it committed, and none has gone since, so all of them can be copied, however
//! long that takes. Writes go on; what they add is in the next backup.

mod chunks;
mod incoming;
mod make;
mod manifest;
mod mark;
mod remote;
mod repository;
mod restore;
pub mod retention;
mod transport;
mod verify;

pub use make::{ExtraFile, Made, Order, make};
pub use manifest::{BlobSet, Content, FileEntry, Manifest};
pub use remote::Access;
pub use repository::{Listed, Repository};
pub use restore::{Restored, Wanted, restore};
pub use verify::{Verified, verify};

/// Bytes of one chunk before it is compressed. Pages of a catalog stay where they are, so chunks of those that did not
/// change are in the repository already.
const CHUNK_BYTES: usize = 1 << 20;
/// Objects that are written, read or removed at once.
const FAN_OUT: usize = 8;
/// Contents up to this size are held in memory, [`FAN_OUT`] of them at once; larger ones go through in parts.
const WHOLE_BYTES: u64 = 8 << 20;
/// Bytes of one part of a larger content, and how many are on their way at once.
const PART_BYTES: usize = 8 << 20;
const PARTS: usize = 4;
/// Largest file of the operator that a backup takes, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;
/// Most faults that are named one by one.
const MAX_NAMED: usize = 20;
