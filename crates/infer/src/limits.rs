//! Every bound of this crate in one place.

use std::time::Duration;

/// Tokens of a text that the model sees, `[CLS]` and `[SEP]` included; the rest is cut. This is the
/// `max_seq_length` that all-MiniLM-L6-v2 was published with.
pub const MAX_TOKENS: usize = 256;
/// Characters of a text that are tokenised; the rest is cut before tokenising, so that a text of megabytes costs no
/// more than one of 16 Ki characters. The vector could only differ for a text of more than 64 characters a token.
pub const MAX_TEXT_CHARS: usize = 16_384;
/// Most rows of a batch, whatever the configuration says.
pub const MAX_BATCH_ROWS: usize = 256;
/// Most tokens of a batch, padding included. It bounds how long a query can wait behind an ingest batch, and memory
/// (attention takes 48 bytes a token pair and row); larger batches gain no speed, see `examples/embed_rate.rs`.
pub const MAX_BATCH_TOKENS: usize = 256;
/// Batches' worth of rows that are sorted by length together.
pub const POOL_BATCHES: usize = 16;
/// Texts of one queued task. A call with more is split.
pub const MAX_TASK_TEXTS: usize = 64;
/// Ingest texts that are queued or running; a call beyond waits.
pub const MAX_INGEST_TEXTS: usize = 1024;
/// Query texts that are queued or running; a call beyond is refused with `Busy`.
pub const MAX_QUERY_TEXTS: usize = 512;
/// Query batches in a row after which one ingest batch gets its turn.
pub const MAX_QUERY_STREAK: usize = 8;
/// Threads a model may use, whatever the configuration says.
pub const MAX_THREADS: usize = 64;
/// Tokens of a query and a document together that a cross-encoder sees where the registry does not say.
pub const MAX_PAIR_TOKENS: usize = 512;
/// Pairs of texts that are queued or running in one cross-encoder; a call beyond is refused with `Busy`.
pub const MAX_WAITING_PAIRS: usize = 4_096;
/// Pixels of the largest image that is looked at.
pub const MAX_PIXELS: u64 = 1 << 27;
/// Queries that wait for their turn at one image or sound model; one beyond is refused with `Busy`.
pub const MAX_WAITING_TURNS: usize = 256;
/// Largest file that is taken from a model hub, in bytes.
pub const MAX_HUB_FILE_BYTES: u64 = 8 << 30;
/// Largest file that is taken out of a package, in bytes.
pub const MAX_MEMBER_BYTES: u64 = 2 << 30;
/// Most bytes that are converted at once: they lie in memory, and what is made of them, too.
pub const MAX_CONVERSION_BYTES: u64 = 1 << 30;
/// Of an archive that somebody brings: its entries, all that comes out of it, its model file and each other file that is
/// read, the last three in bytes.
pub const MAX_BROUGHT_ENTRIES: usize = 256;
pub const MAX_BROUGHT_BYTES: u64 = 4 << 30;
pub const MAX_BROUGHT_MODEL_BYTES: u64 = 2 << 30;
pub const MAX_BROUGHT_FILE_BYTES: u64 = 64 << 20;
/// How many times as large as the archive all that comes out of it may be, and what may always come out. Weights hardly
/// shrink, so what grows more is made to exhaust whoever opens it.
pub const MAX_BROUGHT_GROWTH: u64 = 50;
pub const FREE_BROUGHT_BYTES: u64 = 4 << 20;
/// Tokens of a text that a model sees at most that somebody brought, whatever it says of itself.
pub const MAX_BROUGHT_TOKENS: usize = 512;
/// Time one package download may take.
pub const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(900);
/// Bytes of the package client's messages that are kept for an error.
pub const MAX_CLIENT_MESSAGE_BYTES: u64 = 16 << 10;
/// Longest recording that is transcribed at once: 6 hours, 1.4 GB of samples.
pub const MAX_SPEECH_SECONDS: usize = 6 * 3600;
/// Recordings that are being transcribed or wait for it; a call beyond is refused with `Busy`.
pub const MAX_WAITING_RECORDINGS: usize = 16;
/// Windows of 30 seconds that are decoded together, and the memory that their sound may take in bytes.
pub const MAX_WINDOWS_AT_ONCE: usize = 8;
pub const MAX_SOUND_BYTES: usize = 512 << 20;
/// Times that one hash may stand in a fingerprint that another is compared with; a more frequent one places nothing.
pub const MAX_EQUAL_HASHES: usize = 4_096;
/// Offsets between two fingerprints that are looked at, and the parts in common that are told.
pub const MAX_OFFSETS: usize = 16;
pub const MAX_MATCHES: usize = 16;
