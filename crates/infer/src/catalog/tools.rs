//! What decodes media: programs and libraries that another crate runs.

use crate::entry::{Client, Group, ModelEntry, ModelFile, Origin, Platform, Runtime, Source, Task};

pub const MEDIA_TOOLS: Group = Group { id: "media_tools", members: &[FFMPEG.id, PDFIUM.id] };

const FFMPEG_X86_64: Source = Source {
    client: Client::Pip,
    name: "imageio-ffmpeg",
    version: "0.8.1",
    archive: "imageio_ffmpeg-0.8.1-py3-none-manylinux_2_28_x86_64.whl",
    archive_sha256: "050d6850601c3b3890bd2b28306f3b842b3daea390a561101174375a1c460bda",
};

const FFMPEG_AARCH64: Source = Source {
    archive: "imageio_ffmpeg-0.8.1-py3-none-manylinux_2_28_aarch64.whl",
    archive_sha256: "fad3176f859b25869e60a8ed79957d4e3ed74a97a95e5f0cdcb91455f6c6d00e",
    ..FFMPEG_X86_64
};

pub const FFMPEG: ModelEntry = ModelEntry {
    id: "ffmpeg",
    aliases: &[],
    task: Task::Decode,
    summary: "Reads and writes video and audio: the program ffmpeg 9.0.2, one file without dependencies",
    dimensions: 0,
    max_tokens: 0,
    runtime: Runtime::Native,
    loadable: true,
    licence: "GPL-3.0-or-later",
    files: &[
        ModelFile::new(
            "ffmpeg",
            172_692_552,
            "0d709a0bed1a43f24cd2c420878c63afea4580671b6949ad19ed124572f3bc3d",
            Origin::Member { source: FFMPEG_X86_64, path: "imageio_ffmpeg/binaries/ffmpeg-linux-x86_64-v9.0.2" },
        )
        .on(Platform::LinuxX86_64)
        .program(),
        ModelFile::new(
            "ffmpeg",
            130_865_896,
            "0b0b5ac30495b4e07ce1321b8d58200f901f57782884a8b6b264c7528c2c9e77",
            Origin::Member { source: FFMPEG_AARCH64, path: "imageio_ffmpeg/binaries/ffmpeg-linux-aarch64-v9.0.2" },
        )
        .on(Platform::LinuxAarch64)
        .program(),
    ],
    hub: None,
    needs: &[],
};

const PDFIUM_X86_64: Source = Source {
    client: Client::Pip,
    name: "pypdfium2",
    version: "5.15.2",
    archive: "pypdfium2-5.15.2-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    archive_sha256: "dc31aea5b0fb9fefc9b537a65f4113980b2c40798445736a7e6565bc85161e37",
};

const PDFIUM_AARCH64: Source = Source {
    archive: "pypdfium2-5.15.2-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
    archive_sha256: "dd46e93c0c3a73f6cea8489baff6d77a5d0759dd53fbbce0aeb49c91830176fc",
    ..PDFIUM_X86_64
};

const PDFIUM_LIBRARY: &str = "pypdfium2_raw/libpdfium.so";

pub const PDFIUM: ModelEntry = ModelEntry {
    id: "pdfium",
    aliases: &[],
    task: Task::Decode,
    summary: "Draws the pages of PDF files and reads their text: the library PDFium",
    dimensions: 0,
    max_tokens: 0,
    runtime: Runtime::Native,
    loadable: true,
    licence: "Apache-2.0",
    files: &[
        ModelFile::new(
            "libpdfium.so",
            8_271_176,
            "c76dc0f7839644bfa7c3e3107a6068df714e339c861bb7d4519907b821d427f9",
            Origin::Member { source: PDFIUM_X86_64, path: PDFIUM_LIBRARY },
        )
        .on(Platform::LinuxX86_64),
        ModelFile::new(
            "libpdfium.so",
            8_308_952,
            "4378615ad9710397c96c112611be9018629bbfe38805d91a2663a534b99c28ca",
            Origin::Member { source: PDFIUM_AARCH64, path: PDFIUM_LIBRARY },
        )
        .on(Platform::LinuxAarch64),
    ],
    hub: None,
    needs: &[],
};
