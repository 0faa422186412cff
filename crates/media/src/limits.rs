//! Every bound of this crate in one place.

use std::time::Duration;

/// Bytes at the beginning of a file that [`crate::detect`] looks at; more are not needed.
pub const HEAD_BYTES: usize = 8192;
/// Largest image file that is read, in bytes.
pub const MAX_IMAGE_FILE_BYTES: u64 = 256 << 20;
/// Pixels of an image, a page or a frame, unless the caller says otherwise.
pub const MAX_PIXELS: u64 = 100_000_000;
/// Longest side of an image, in pixels.
pub const MAX_SIDE: u32 = 65_535;
/// Memory that one image decoder may ask for, in bytes: twice what 100 megapixels of 16-bit RGBA take would be more than
/// the process has.
pub const MAX_IMAGE_ALLOCATION_BYTES: u64 = 1 << 30;
/// Outputs that one decoded image or page is turned into.
pub const MAX_OUTPUTS: usize = 64;
/// Longest side that an SVG is drawn with, in pixels; one that says it is larger is drawn smaller.
pub const MAX_SVG_SIDE: u32 = 4096;
/// Entries of each list in an HEIF file that are looked at.
pub const MAX_ITEMS: usize = 65_536;
/// Parts that an HEIF picture is put together of. A photo of 48 megapixels has some 200.
pub const MAX_TILES: usize = 1024;
/// Longest side of an output, in pixels.
pub const MAX_OUTPUT_SIDE: u32 = 8192;
/// Longest side of a thumbnail, in pixels.
pub const THUMBNAIL_SIDE: u32 = 640;
/// Quality of a thumbnail's JPEG, 1 to 100.
pub const THUMBNAIL_QUALITY: u8 = 82;

/// Address space of a worker, in bytes.
pub const WORKER_MEMORY_BYTES: u64 = 2 << 30;
/// Address space of one `ffmpeg`, in bytes. The program itself maps some 200 MiB.
pub const FFMPEG_MEMORY_BYTES: u64 = 3 << 30;
/// Longest that a worker may take for an image, a probe or a page.
pub const WORKER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest that `ffmpeg` may give no output before it counts as hanging. Searching for cuts gives none for long.
pub const FFMPEG_SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Processor time of one `ffmpeg`, in seconds, all threads together.
pub const FFMPEG_CPU_SECONDS: u64 = 3600;
/// Processor time of one `ffmpeg` for a still image, in seconds, all threads together. It is stopped before, unless its
/// parent has died.
pub const STILL_CPU_SECONDS: u64 = 240;
/// Bytes that a file may have which the `ffmpeg` of a still writes, even if the pixels are fewer: drawing text may leave a
/// cache of fonts.
pub const MIN_STILL_FILE_BYTES: u64 = 64 << 20;
/// Processor time that a worker gets for its whole life, in seconds; it is retired long before.
pub const WORKER_CPU_SECONDS: u64 = 1800;
/// Requests after which a worker is replaced.
pub const MAX_WORKER_REQUESTS: u32 = 500;
/// Time in requests after which a worker is replaced.
pub const MAX_WORKER_BUSY: Duration = Duration::from_secs(600);
/// Resident memory above which a worker is replaced once it is idle, in bytes.
pub const MAX_IDLE_WORKER_BYTES: u64 = 384 << 20;
/// Open files of a child.
pub const MAX_CHILD_FILES: u64 = 64;
/// Processes of a kind that run beside each other, whatever the configuration says.
pub const MAX_CHILDREN: usize = 64;

/// Largest header of a message between parent and worker, in bytes.
pub const MAX_HEADER_BYTES: usize = 64 << 20;
/// Largest body of a message between parent and worker, in bytes.
pub const MAX_BODY_BYTES: u64 = 512 << 20;
/// Bytes of a child's messages that are kept for an error.
pub const MAX_MESSAGE_BYTES: usize = 8 << 10;
/// Lines of text that `ffmpeg` may answer with.
pub const MAX_OUTPUT_LINES: usize = 200_000;
/// Bytes of one line of that text.
pub const MAX_LINE_BYTES: u64 = 64 << 10;

/// Frames that are taken from a video in one request.
pub const MAX_FRAMES: u64 = 100_000;
/// Times at which frames are taken in one request.
pub const MAX_FRAME_TIMES: usize = 10_000;
/// Samples of a chunk of sound.
pub const AUDIO_CHUNK_SAMPLES: usize = 16_384;
/// Segments of one plan.
pub const MAX_SEGMENTS: usize = 100_000;
/// Largest file that a cut or a transcoding may write, in bytes.
pub const MAX_MADE_FILE_BYTES: u64 = 8 << 30;

/// Pages of a document.
pub const MAX_PAGES: u32 = 100_000;
/// Characters of a page.
pub const MAX_PAGE_CHARS: usize = 500_000;
/// Entries of an outline.
pub const MAX_OUTLINE_ENTRIES: usize = 20_000;
/// Levels of an outline.
pub const MAX_OUTLINE_DEPTH: u32 = 32;
/// Objects of a page that are looked at for figures and rules.
pub const MAX_PAGE_OBJECTS: usize = 20_000;
/// Dots an inch that a page is rendered at, at most.
pub const MAX_DPI: f32 = 600.0;
